"""The placement follows the services, whatever one of them is busy with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from services.model.checkpoint import Checkpoint
from services.router.dispatch.frame_pairs import NOBODY
from services.router.dispatch.placement import Placement
from services.router.hosting.fleet import Fleet
from services.wire.errors import BadState
from tests.router.scripted_service import ScriptedService, expected_of, served


class Placements:
    """The newest placement, and how to wait for the next."""

    def __init__(self) -> None:
        self.newest = Placement()
        self._changed = asyncio.Event()

    def take(self, placement: Placement) -> None:
        self.newest = placement
        self._changed.set()

    async def until_owned(self, layer: int, expert: int) -> None:
        async with asyncio.timeout(10):
            while layer not in self.newest.owners or self.newest.owners[layer][expert] == NOBODY:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(
    checkpoint: Checkpoint, *addresses: str
) -> AsyncIterator[tuple[Fleet, Placements, asyncio.Task[None]]]:
    placements = Placements()
    made = Fleet(
        checkpoint,
        addresses,
        expected_of(checkpoint),
        num_lanes=1,
        frame_floor_seconds=5,
        place=placements.take,
        name="router-1",
    )
    task = asyncio.create_task(made.run(10))
    try:
        yield made, placements, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_a_service_hosts_is_used_while_another_one_loads(checkpoint: Checkpoint) -> None:
    loading, hosting = ScriptedService(checkpoint), ScriptedService(checkpoint)
    async with (
        served(loading) as one,
        served(hosting) as two,
        running(checkpoint, one, two) as (_, placements, _task),
    ):
        await loading.loading.wait()
        await hosting.loading.wait()
        hosting.host((0, 5))
        await placements.until_owned(0, 5)


async def test_the_fleet_outlives_a_service_that_leaves_in_the_middle_of_a_load(
    checkpoint: Checkpoint,
) -> None:
    service = ScriptedService(checkpoint)
    async with served(service) as address, running(checkpoint, address) as (_, placements, task):
        await service.loading.wait()
        service.loading.clear()
        service.end_streams()
        await service.loading.wait()  # it is asked again, over a new connection
        service.host((0, 0))
        await placements.until_owned(0, 0)
        assert not task.done()


async def test_replicas_are_counted_over_the_services_that_are_live(checkpoint: Checkpoint) -> None:
    every = [
        (layer, expert)
        for layer in checkpoint.moe_layers
        for expert in range(checkpoint.num_experts)
    ]
    one, two = ScriptedService(checkpoint), ScriptedService(checkpoint)
    one.host(*every)
    two.host(*every[:-1])
    async with (
        served(one) as first,
        served(two) as second,
        running(checkpoint, first, second) as (fleet, _, _task),
    ):
        await fleet.complete()
        async with asyncio.timeout(10):  # the other one may still be tried
            while not all(fleet.laid.ready_by_service.values()):
                await fleet.changed.wait()
        assert fleet.laid.min_live_replicas == 1
        assert fleet.laid.ready_by_service == {first: len(every), second: len(every) - 1}


async def test_a_checkpoint_that_a_service_cannot_read_ends_the_start(
    checkpoint: Checkpoint,
) -> None:
    service = ScriptedService(checkpoint)
    service.load_error = (grpc.StatusCode.FAILED_PRECONDITION, "model.safetensors is truncated")
    async with served(service) as address, running(checkpoint, address) as (_, _, task):
        with pytest.raises(ExceptionGroup) as caught:
            await task
        leaves: BaseException = caught.value
        while isinstance(leaves, ExceptionGroup):
            leaves = leaves.exceptions[0]
        assert isinstance(leaves, BadState)
        assert (
            str(leaves)
            == f"expert service {address} cannot load its experts: model.safetensors is truncated"
        )
