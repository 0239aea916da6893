"""Lanes are chosen online in a real cluster: more of them with a slow device far away, one for one
sequence.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest
import torch

from bench.hosting.wire import Wire
from bench.rig.simulated import DeviceTime, SimulatedExpert, simulated_expert
from services.model.kv_cache import KvCache
from services.router.engine.step import Step
from services.router.engine.trunk import Trunk
from services.router.lanes.choice import AutoLanes, LaneChoice, Why
from services.router.lanes.times import StepSeen
from tests.checkpoints import MAX_CONTEXT, VOCAB_SIZE, save_tiny
from tests.cluster import local
from tests.cluster.oracle import LogitsRecord, prompts_of
from tests.cluster.router_client import RouterClient, connected
from tests.cluster.test_batch_invariance import TESSERA, logits_of

NUM_SEQUENCES, TOP_K = 16, 2
MAX_TRIES = 10
# Both are many times what the processes compute for the one layer, so that a machine that is busy
# does not decide.
ROUND_TRIP_SECONDS = 0.05
DEVICE_SECONDS = 0.05  # for the rows of all sequences


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """One layer, so that a step is no longer than the layer's times."""
    return save_tiny("olmoe", tmp_path / "olmoe", num_hidden_layers=1)


class Choices(list[LaneChoice]):
    """Every choice there was, and a wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def note(self, choice: LaneChoice) -> None:
        self.append(choice)
        self._news.set()

    async def until_measured(self) -> LaneChoice:
        while not self or self[-1].why is not Why.MEASURED:
            self._news.clear()
            await self._news.wait()
        return self[-1]


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> Choices:
    made, observe = Choices(), AutoLanes.observe

    def observing(lanes: AutoLanes, seen: StepSeen) -> None:
        observe(lanes, seen)
        made.note(lanes.choice)

    monkeypatch.setattr(AutoLanes, "observe", observing)
    return made


@asynccontextmanager
async def slow_wire(address: str) -> AsyncIterator[str]:
    wire = await Wire.start(address)
    try:
        await wire.delay(ROUND_TRIP_SECONDS / 2)
        yield wire.address
    finally:
        await wire.close()


@asynccontextmanager
async def far_away(model: Path) -> AsyncIterator[RouterClient]:
    """A router with the default lanes, and its one service on a simulated device at the end of a
    slow wire.
    """
    row_nanos = int(DEVICE_SECONDS * 1e9 / (NUM_SEQUENCES * TOP_K))
    async with (
        simulated_expert(SimulatedExpert(model, DeviceTime(row_nanos=row_nanos))) as port,
        slow_wire(f"127.0.0.1:{port}") as address,
        local.router(model, [address]) as router,
        connected(router) as client,
    ):
        yield client


@pytest.mark.alone
async def test_a_slow_device_far_away_gets_more_than_one_lane(
    model: Path, choices: Choices
) -> None:
    async with far_away(model) as client:
        choices.clear()
        names = await client.submit(
            prompts_of([4] * NUM_SEQUENCES, VOCAB_SIZE), max_new_tokens=MAX_CONTEXT - 4
        )
        generating = asyncio.ensure_future(client.finished(*names))
        measuring = asyncio.ensure_future(choices.until_measured())
        await asyncio.wait([generating, measuring], return_when=asyncio.FIRST_COMPLETED)
        assert measuring.done(), "every sequence ended before there was a verdict"
        assert measuring.result().lanes >= 2
        await client.cancel(*names)
        await generating


async def test_one_sequence_has_one_lane(model: Path, choices: Choices) -> None:
    async with far_away(model) as client:
        await client.generate(prompts_of([4], VOCAB_SIZE), max_new_tokens=40)
        assert len(choices) >= 40
        assert set(choices) == {LaneChoice(1, Why.FEW_SEQUENCES)}


async def test_requests_get_the_same_bits_while_they_change_lanes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = prompts_of([37, 1, 5, 18, 33], VOCAB_SIZE)
    record = LogitsRecord(monkeypatch)
    in_one_lane = await logits_of(TESSERA, prompts, 1, record, "float32", lanes=1)
    numbers, lanes_of = cycle([1, 3, 2, 4]), defaultdict(set)

    def observe(lanes: AutoLanes, seen: StepSeen) -> None:
        lanes.choice = LaneChoice(next(numbers), Why.TRIAL)

    forward = Trunk.forward

    def noting(trunk: Trunk, step: Step, cache: KvCache) -> torch.Tensor:
        for work in step.batch:
            lanes_of[work.sequence.order.prompt].add(step.lane)
        return forward(trunk, step, cache)

    monkeypatch.setattr(AutoLanes, "observe", observe)
    monkeypatch.setattr(Trunk, "forward", noting)
    for _ in range(MAX_TRIES):  # short requests may have ended before they could change lanes
        in_many = await logits_of(TESSERA, prompts, 2, record, "float32")
        assert all(map(torch.equal, in_one_lane, in_many))
        if any(len(lanes_of[prompt]) > 1 for prompt in prompts):
            return
        lanes_of.clear()
    pytest.fail("no request changed lanes")
