"""A router's fleet and dispatcher over simulated services that are given their experts, and its
balancer.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.harness.failure import BenchFailed
from bench.placement.cluster import Shape
from bench.placement.live_frames import SentFrames
from bench.rig.peers import FRAME_SECONDS, expected_of
from bench.rig.processes import forked
from bench.rig.simulated import DeviceTime, SimulatedExpert, simulated_experts
from services.cli.members import free_addresses
from services.model.checkpoint import Checkpoint
from services.router.balance.balancer import Balancer
from services.router.balance.planner import Planner
from services.router.dispatch.combine import ExactCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.router.hosting.fleet import Fleet
from services.router.load.watch import RoutingWatch
from services.router.planning.goals import Stated
from services.router.settings import RouterSettings
from services.wire.errors import ServingError
from services.wire.expert_key import ExpertKey

START_SECONDS = 60.0
MOVE_SECONDS = 120.0

Hosted = Mapping[str, frozenset[ExpertKey]]  # by address


class LiveCluster:
    """What a router has between its trunk and its services. Nothing is balanced but while
    `balancing`.

    `settings` are the router's, as far as they are about balancing; `sent` knows the frames.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: RouterSettings, time: DeviceTime, num_lanes: int
    ) -> None:
        self.checkpoint = checkpoint
        self.settings = settings
        self.sent = SentFrames(time)
        num_experts, top_k = checkpoint.num_experts, checkpoint.num_experts_per_token
        self.watch = RoutingWatch(
            checkpoint.moe_layers, num_experts, top_k, settings.rebalance_steps
        )
        self.dispatcher = Dispatcher(
            num_experts=num_experts,
            hidden_size=checkpoint.hidden_size,
            wire_dtype=checkpoint.dtype,
            combine=ExactCombine(),
            watch=self.watch,
        )
        self.fleet = Fleet(
            checkpoint,
            settings.experts,
            expected_of(checkpoint, checkpoint.dtype),
            num_lanes=num_lanes,
            frame_floor_seconds=FRAME_SECONDS,
            place=lambda placement: self.dispatcher.place(self.sent.through(placement)),
            name="router-1",
        )

    @property
    def hosted(self) -> Hosted:
        """What each service hosts."""
        return {host.address: frozenset(host.hosted) for host in self.fleet.survey.hosts()}

    @property
    def num_loaded(self) -> int:
        """Experts that were loaded since the start, by all services together."""
        return sum(self.fleet.transfers.num_loaded.values())

    @property
    def num_operations(self) -> int:
        """Operations that were done since the start."""
        return self.fleet.operations.num_ended["done"]

    def is_moving(self) -> bool:
        """Whether experts are on their way somewhere, or an operation is under way that will see to
        it.
        """
        return self.fleet.operations.current is not None or not self.fleet.transfers.is_idle()

    @asynccontextmanager
    async def balancing(self) -> AsyncIterator[Balancer]:
        """The automatic mode while the block runs, as of a router that has seen no
        traffic before.
        """
        self.watch.restart()
        balancer = Balancer(self.fleet, self.watch, Planner(), self.settings)
        async with asyncio.TaskGroup() as loops:
            running = loops.create_task(balancer.run())
            try:
                yield balancer
            finally:
                running.cancel()

    async def place(self, hosted: Hosted) -> None:
        """Bring a stated placement about. Raises BenchFailed when that fails or takes too long."""
        try:
            async with asyncio.timeout(MOVE_SECONDS):
                async for _ in self.fleet.change("", Stated(hosted)).follow():
                    pass
        except (ServingError, TimeoutError) as error:
            raise BenchFailed(
                f"the experts could not be put where they were: {error or 'it took too long'}"
            ) from error


@asynccontextmanager
async def live_cluster(
    model: Path, shape: Shape, time: DeviceTime, *, num_lanes: int, **balancing: Any
) -> AsyncIterator[LiveCluster]:
    """A cluster that has just started: its experts are spread evenly, one replica of each.

    `balancing` are settings of the router. Raises BenchFailed when it does not come to that.
    """
    addresses = free_addresses(shape.num_services)
    simulated = [
        SimulatedExpert(model, time, shape.service_slots, address) for address in addresses
    ]
    settings = RouterSettings(model=model, experts=addresses, **balancing)
    async with forked(simulated_experts, [simulated]), asyncio.TaskGroup() as loops:
        cluster = LiveCluster(Checkpoint.open(model), settings, time, num_lanes)
        running = loops.create_task(cluster.fleet.run(START_SECONDS))
        try:
            await _until_complete(cluster.fleet)
            yield cluster
        finally:
            running.cancel()


async def _until_complete(fleet: Fleet) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            await fleet.complete()
    except TimeoutError:
        raise BenchFailed(f"not every expert was hosted within {START_SECONDS:g} s") from None
