"""Planning live: recorded routing through a router's dispatcher to simulated services, unplanned
and as it plans.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.placement.cluster import READ, Shape
from bench.placement.live_cluster import Hosted, LiveCluster, live_cluster
from bench.placement.live_traffic import Driver, Play, Played, evened, plays_of
from bench.placement.traffic import MIXED, halves
from bench.rig.simulated import DeviceTime
from services.model.checkpoint import Checkpoint
from services.router.balance.balancer import Balancer
from services.router.balance.outcomes import PlanOutcome
from services.router.load.recording import Recording

NUM_SERVICES = 8
REPLICAS = 1.5  # slots of a layer for each of its experts, as many services have memory to spare
PRICES = READ
# Of the automatic mode: a router looks less often, at more steps. Here there are only a few seconds
# of each topic.
BALANCING = {"rebalance_seconds": 1.0, "rebalance_steps": 128}
NUM_LOOKS = 2  # one after the other that find nothing to gain: then all is as planned
MOST_SECONDS = 90.0
UNPLANNED, EVENLY_ROUTED, PLANNED = "unplanned", "evenly routed", "planned"


@dataclass(frozen=True)
class Automatic:
    """What the automatic mode did: when its last operation was done, the experts it loaded, and the
    steps meanwhile.
    """

    seconds: float | None
    num_operations: int
    num_loads: int
    played: Played
    outcomes: Sequence[PlanOutcome]


@dataclass(frozen=True)
class Round:
    """One topic: each variant's plays by name, how it came to be planned, and the steps while that
    was undone.
    """

    topic: str
    lives: dict[str, dict[str, Played]]
    automatic: Automatic
    undoing: Played


async def measure_live(
    model: Path, recorded: Sequence[Recording], stages: Stages, *, num_windows: int
) -> tuple[Shape, list[Round]]:
    """A round for each topic, all on one cluster. Raises BenchFailed where the recordings are
    another model's.
    """
    checkpoint = Checkpoint.open(model)
    num_layers, num_experts = len(checkpoint.moe_layers), checkpoint.num_experts
    if any((it.num_layers, it.num_experts) != (num_layers, num_experts) for it in recorded):
        raise BenchFailed(
            f"{checkpoint.name} has {num_layers} layers of {num_experts} experts; what was "
            "recorded not"
        )
    shape = Shape(num_layers, num_experts, NUM_SERVICES, int(num_experts * REPLICAS))
    async with live_cluster(model, shape, device_time(), num_lanes=2, **BALANCING) as cluster:
        start, rounds = cluster.hosted, []
        with stages.stage(f"live, {NUM_SERVICES} simulated services", len(recorded)):
            for recording in recorded:
                rounds.append(await _Rounds(cluster, start, num_windows).run(recording))
                stages.step()
    return shape, rounds


def device_time() -> DeviceTime:
    """What the simulated devices take."""
    return DeviceTime(int(PRICES.fixed_nanos), int(PRICES.expert_nanos), int(PRICES.pair_nanos))


class _Rounds:
    """Plays a topic to a cluster: by its first half experts are placed, and the other half is what
    is measured.
    """

    def __init__(self, cluster: LiveCluster, start: Hosted, num_windows: int) -> None:
        self._cluster = cluster
        self._start = start
        self._num_windows = num_windows
        self._driver = Driver(cluster)

    async def run(self, recording: Recording) -> Round:
        """From the placement of a cluster that has just started, and back to it."""
        seen, unseen = halves(recording)
        plays = plays_of(unseen, self._num_windows)
        lives = {
            UNPLANNED: await self._play(plays),
            EVENLY_ROUTED: await self._play(
                [replace(play, recording=evened(play.recording)) for play in plays]
            ),
        }
        traffic = next(play for play in plays_of(seen, self._num_windows) if play.name == MIXED)
        automatic = await self._balance(traffic)
        lives[PLANNED] = await self._play(plays)
        return Round(recording.topic, lives, automatic, await self._undo(traffic))

    async def _play(self, plays: Sequence[Play]) -> dict[str, Played]:
        return {play.name: await self._driver.play(play) for play in plays}

    async def _balance(self, traffic: Play) -> Automatic:
        cluster = self._cluster
        num_loaded, num_operations = cluster.num_loaded, cluster.num_operations
        async with cluster.balancing() as balancer:
            watcher = _Watcher(cluster, balancer)
            played = await self._driver.play_until(traffic, watcher.is_over)
            outcomes = list(balancer.outcomes)
        return Automatic(
            watcher.seconds,
            cluster.num_operations - num_operations,
            cluster.num_loaded - num_loaded,
            played,
            outcomes,
        )

    async def _undo(self, traffic: Play) -> Played:
        async with asyncio.TaskGroup() as tasks:
            placing = tasks.create_task(self._cluster.place(self._start))
            return await self._driver.play_until(traffic, placing.done)


class _Watcher:
    """Looks at the automatic mode between steps. `seconds` is when its last operation was done,
    None without one.
    """

    def __init__(self, cluster: LiveCluster, balancer: Balancer) -> None:
        self.seconds: float | None = None
        self._cluster = cluster
        self._balancer = balancer
        self._began = time.monotonic()
        self._num_operations = cluster.num_operations
        self._num_in_vain = 0

    def is_over(self) -> bool:
        """Whether nothing more is to be expected of it."""
        now = time.monotonic() - self._began
        if self._cluster.num_operations != self._num_operations:
            self._num_operations, self.seconds = self._cluster.num_operations, now
            self._num_in_vain = self._balancer.num_plans["too_little"]
        is_settled = self._balancer.num_plans["too_little"] >= self._num_in_vain + NUM_LOOKS
        return (is_settled or now >= MOST_SECONDS) and not self._cluster.is_moving()
