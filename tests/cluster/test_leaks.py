"""Nothing is left behind by requests that end early."""

import asyncio
import gc
import os
import random
from pathlib import Path

from moesaic.v1 import common_pb2
from tests.checkpoints import VOCAB_SIZE
from tests.cluster import local
from tests.cluster.oracle import prompts_of
from tests.cluster.router_client import RouterClient, connected

NUM_REQUESTS = 500
# gRPC and the loop have a few of their own, more or less of them at any moment.
NUM_OWN_FUTURES = 8


def num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def num_pending_futures() -> int:
    gc.collect()
    return sum(
        issubclass(type(thing), asyncio.Future) and not thing.done() for thing in gc.get_objects()
    )


async def settled(client: RouterClient, kv_tokens: int, sequences: int) -> None:
    while client.credit.kv_tokens != kv_tokens or client.credit.sequences != sequences:
        await client.read()


async def test_500_requests_cancelled_at_random_moments_leave_nothing_behind(olmoe: Path) -> None:
    chance = random.Random(0)
    async with (
        local.experts(olmoe, 2) as addresses,
        local.router(olmoe, addresses, lanes=2, max_sequences=32) as address,
        connected(address) as client,
    ):
        await client.read()
        kv_tokens, sequences = client.credit.kv_tokens, client.credit.sequences
        await client.generate(prompts_of([8] * 4, VOCAB_SIZE))
        await settled(client, kv_tokens, sequences)
        gc.collect()  # checkpoints of earlier tests keep their files open until then
        tasks, descriptors, futures = (
            len(asyncio.all_tasks()),
            num_descriptors(),
            num_pending_futures(),
        )
        reasons = set()
        for batch in range(NUM_REQUESTS // 20):
            lengths = [chance.randint(1, 100) for _ in range(20)]
            names = await client.submit(
                prompts_of(lengths, VOCAB_SIZE, seed=batch), max_new_tokens=100
            )
            while names:
                for _ in range(chance.randint(0, 2)):
                    await client.read()
                name = names.pop(chance.randrange(len(names)))
                await client.cancel(name)
                (outcome,) = await client.finished(name)
                assert outcome.finish is not None
                reasons.add(outcome.finish.reason)
        await settled(client, kv_tokens, sequences)
        assert common_pb2.FINISH_REASON_CANCELLED in reasons
        assert len(client.outcomes) == NUM_REQUESTS + 4
        assert len(asyncio.all_tasks()) <= tasks  # what a start began may have ended
        assert num_descriptors() == descriptors
        assert num_pending_futures() <= futures + NUM_OWN_FUTURES


async def test_a_gateway_that_vanishes_frees_what_it_had(olmoe: Path) -> None:
    async with local.experts(olmoe, 2) as addresses, local.router(olmoe, addresses) as address:
        async with connected(address) as watching:
            await watching.read()
            kv_tokens, sequences = watching.credit.kv_tokens, watching.credit.sequences
            async with connected(address) as vanishing:
                await vanishing.submit(prompts_of([50] * 6, VOCAB_SIZE), max_new_tokens=200)
                while watching.credit.kv_tokens == kv_tokens:
                    await watching.read()
            await settled(watching, kv_tokens, sequences)
