"""Experts that move between two services all the time: memory, slots and contents."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import torch

from services.expert.app import ExpertParts
from services.expert.hosting import ExpertState
from services.expert.loading import LoadingProgress, LoadingTimes
from services.wire.errors import Outdated, Overloaded
from services.wire.expert_key import ExpertKey
from tests.expert.expert_client import Client, assert_close, expected_rows, expert_service

NUM_SLOTS = 16
NUM_MOVES = 1_000
NUM_MOVERS = 4
EXPERT_BYTES = 3 * 24 * 32 * 4
KEYS = [ExpertKey(layer, expert) for layer in range(3) for expert in range(8)]


def ready(parts: ExpertParts) -> set[ExpertKey]:
    return {
        key for key, hosted in parts.hosting.snapshot().experts if hosted.state is ExpertState.READY
    }


async def unreported(_: LoadingProgress) -> None:
    """Nobody asks how far it is."""


async def watched(parts: ExpertParts) -> int:
    """Check the hosting at each change until it is closed; how many changes there were."""
    num_changes = 0
    async for snapshot in parts.hosting.watch():
        num_changes += 1
        slots = [hosted.slot for _, hosted in snapshot.experts]
        assert len(slots) == len(set(slots))
        assert set(slots) <= set(range(NUM_SLOTS))
        assert len(slots) + snapshot.num_free == NUM_SLOTS
    return num_changes


class Mover:
    """Moves an expert at a time, loaded in its new place before it leaves the old one."""

    def __init__(self, services: list[ExpertParts], seed: int) -> None:
        self._services = services
        self._random = random.Random(seed)
        self.refusals: list[type[Exception]] = []

    async def move(self) -> None:
        while True:
            source, target = self._random.sample(self._services, 2)
            if ready(source):
                key = self._random.choice(sorted(ready(source)))
                try:
                    await target.library.load([key], target.hosting.generation, unreported)
                    await source.library.unload([key], source.hosting.generation)
                    return
                except (Outdated, Overloaded) as refusal:
                    self.refusals.append(type(refusal))
            await asyncio.sleep(0)


async def assert_computes_what_it_hosts(service: Client) -> None:
    stream, rows = service.open_stream(), torch.randn(2, 32)
    for key in sorted(ready(service.parts)):
        pairs = [(0, key.expert), (1, key.expert)]
        await stream.send(0, rows, pairs, layer=key.layer)
        expected = expected_rows(service.parts.checkpoint, key.layer, rows, pairs)
        assert_close((await stream.reply()).rows(torch.float32, 32), expected)


async def test_a_thousand_moves_stay_within_the_memory_that_was_allocated_once(
    olmoe: Path,
) -> None:
    times = LoadingTimes(retire_seconds=0.0)
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(
                expert_service(
                    olmoe,
                    times=times,
                    expert_memory=NUM_SLOTS * EXPERT_BYTES,
                    preload=preload,
                )
            )
            for preload in ("0/2", "1/2")
        ]
        parts = [service.parts for service in services]
        allocated = [
            [weight.data_ptr() for weight in each.bank.pool.parameters()] for each in parts
        ]
        movers = [Mover(parts, seed) for seed in range(NUM_MOVERS)]

        async def moves(mover: Mover) -> None:
            for _ in range(NUM_MOVES // NUM_MOVERS):
                await mover.move()

        async with asyncio.TaskGroup() as tasks:
            watches = [tasks.create_task(watched(each)) for each in parts]
            await asyncio.gather(*map(moves, movers))
            for each in parts:
                each.hosting.close()
        # A move is two changes on each side, and whoever watches misses some.
        assert min(watch.result() for watch in watches) > NUM_MOVES // 2
        assert {Outdated, Overloaded} == {refusal for mover in movers for refusal in mover.refusals}
        assert [
            [weight.data_ptr() for weight in each.bank.pool.parameters()] for each in parts
        ] == allocated
        assert set.union(*map(ready, parts)) == set(KEYS)
        for service in services:
            await assert_computes_what_it_hosts(service)
