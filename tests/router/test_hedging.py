"""Frames that are late are computed by another replica, too, and the first answer counts."""

import asyncio
import random
from typing import Any

import numpy as np
import pytest
import torch

from services.router.dispatch.combine import ExactCombine, PartialCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.hedge_budget import MOST_KEPT, RESERVE, HedgeBudget
from services.router.dispatch.placement import Placement
from services.router.engine.step import Step
from services.router.peers.late_times import FIRST_FRAMES, LateTimes
from tests.router.scripted_streams import (
    HIDDEN,
    RecordedSpans,
    ScriptedExperts,
    ScriptedStream,
    busy,
    step_of,
    well,
)

LAYER, NUM_EXPERTS, NUM_PAIRS = 3, 4, 8
SCALE = torch.arange(1.0, NUM_EXPERTS * HIDDEN + 1).view(NUM_EXPERTS, HIDDEN)
INDEX = torch.tensor([[0, 1], [0, 2], [2, 3], [2, 3]])
ROUTING = (
    torch.linspace(-1, 1, 4 * HIDDEN).view(4, HIDDEN),
    INDEX,
    torch.linspace(0.1, 0.9, NUM_PAIRS).view(4, 2),
)
OUTPUT = (ROUTING[0][:, None] * SCALE[INDEX] * ROUTING[2][..., None]).sum(1)
ALL = [True] * NUM_EXPERTS


class Hedged:
    """Services with the experts `ready` [services, experts], the first of which is preferred, has
    all of them, and keeps its answers until it is told to give them.
    """

    def __init__(
        self,
        *ready: list[bool],
        share: float = 0.02,
        others: Any = well,
        others_hold: bool = False,
        sums: bool = False,
    ) -> None:
        self.slow = ScriptedStream(SCALE, holds=True)
        self.others = [
            ScriptedStream(SCALE, others, holds=others_hold) for _ in range(len(ready) - 1)
        ]
        self.services = [
            ScriptedExperts(f"{number}:1", [stream])
            for number, stream in enumerate([self.slow, *self.others])
        ]
        for index, service in enumerate(self.services):
            for _ in range(FIRST_FRAMES):
                service.pace.begin(NUM_PAIRS, 4)
                service.pace.end(NUM_PAIRS, 4, 10**5, 0, 10**4 * (1 + 99 * index))
        self.services[0].pace.begin(NUM_PAIRS, 4)  # as a stream would
        self.dispatcher = Dispatcher(
            num_experts=NUM_EXPERTS,
            hidden_size=HIDDEN,
            wire_dtype=torch.float32,
            combine=PartialCombine() if sums else ExactCombine(),
            hedge_share=share,
        )
        self.dispatcher.place(Placement(self.services, {LAYER: np.array(ready)}))

    @property
    def pairs_of_others(self) -> list[list[int]]:
        return [[len(frame.pair_rows) for frame in stream.frames] for stream in self.others]

    def begin(self) -> "tuple[Step, asyncio.Task[torch.Tensor]]":
        step = step_of([2, 2])
        computing = self.dispatcher.compute(step, LAYER, *ROUTING, None)
        return step, asyncio.ensure_future(computing)

    def answer_late(self) -> None:
        for answer, answered in zip(self.slow.waiting, self.slow.answers, strict=True):
            if not answered.done():
                answer()
        self.slow.waiting.clear()
        self.slow.answers.clear()


async def until_copied(made: Hedged) -> None:
    async with asyncio.timeout(5):
        while not any(stream.frames for stream in made.others):  # noqa: ASYNC110 -- a timer has no event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize(
    ("others", "pairs"),
    [([ALL], [[8]]), ([[True, True, False, False], [False, False, True, True]], [[3], [5]])],
    ids=["one copy", "a copy in two parts"],
)
async def test_the_copy_of_a_late_frame_counts_where_it_is_quicker(
    others: list[list[bool]], pairs: list[list[int]], sums: bool
) -> None:
    made = Hedged(ALL, *others, sums=sums)
    step, computing = made.begin()
    output = await asyncio.wait_for(computing, 5)
    torch.testing.assert_close(output, OUTPUT)
    assert made.pairs_of_others == pairs
    assert step.clock.hedges == {("0:1", True): len(others)}
    assert step.clock.retries == {}
    assert [work.sequence.ending for work in step.batch] == [None, None]


@pytest.mark.parametrize("others", [well, busy], ids=["held", "busy"])
async def test_the_frame_counts_where_its_copy_is_not_quicker(others: Any) -> None:
    made = Hedged(ALL, ALL, others=others, others_hold=others is well)
    step, computing = made.begin()
    await until_copied(made)
    await asyncio.sleep(0)
    made.answer_late()
    torch.testing.assert_close(await asyncio.wait_for(computing, 5), OUTPUT)
    assert step.clock.hedges == {("0:1", False): 1}
    assert made.others[0].answers[0].cancelled() == (others is well)


@pytest.mark.parametrize("is_quicker", [True, False])
async def test_of_a_frame_and_its_copy_the_one_that_is_not_needed_has_not_failed(
    is_quicker: bool,
) -> None:
    made, spans = Hedged(ALL, ALL, others_hold=not is_quicker), RecordedSpans()
    step, computing = made.begin()
    step.spans = spans
    await until_copied(made)
    if not is_quicker:
        made.answer_late()
    await asyncio.wait_for(computing, 5)
    assert step.clock.hedges == {("0:1", is_quicker): 1}
    assert spans.frames == [(1, "")]


async def never_copied(made: Hedged) -> bool:
    step, computing = made.begin()
    await asyncio.sleep(0.01)  # many times what makes a frame late here
    made.answer_late()
    torch.testing.assert_close(await asyncio.wait_for(computing, 5), OUTPUT)
    return not step.clock.hedges and not any(stream.frames for stream in made.others)


async def test_a_frame_waits_where_every_other_replica_is_as_busy() -> None:
    made = Hedged(ALL, ALL)
    made.services[1].pace.begin(NUM_PAIRS, 4)
    assert await never_copied(made)


async def test_a_frame_waits_where_one_of_its_experts_has_no_other_replica() -> None:
    assert await never_copied(Hedged(ALL, [True, True, True, False]))


async def test_a_frame_waits_without_a_share() -> None:
    assert await never_copied(Hedged(ALL, ALL, share=0.0))


async def test_no_more_copies_are_sent_than_the_budget_has() -> None:
    made = Hedged(ALL, ALL)
    num_hedges = 0
    for _ in range(int(MOST_KEPT) + 3):
        step, computing = made.begin()
        await asyncio.wait([computing], timeout=0.02)
        made.answer_late()
        torch.testing.assert_close(await computing, OUTPUT)
        num_hedges += step.clock.hedges.total()
    assert num_hedges == MOST_KEPT


def test_a_budget_is_a_share_of_the_frames_and_keeps_some_for_what_is_urgent() -> None:
    budget, spent = HedgeBudget(0.02), {False: 0, True: 0}
    for is_urgent in (False, True):
        while budget.may_spend(is_urgent=is_urgent):
            budget.spend(1)
            spent[is_urgent] += 1
    assert spent == {False: MOST_KEPT - RESERVE, True: RESERVE}
    budget.earn(49)
    assert not budget.may_spend(is_urgent=True)
    budget.earn(2)
    assert budget.may_spend(is_urgent=True)


def test_late_is_what_one_in_twenty_of_a_size_takes() -> None:
    late, draws = LateTimes(), random.Random(1)
    times = [draws.lognormvariate(0.0, 0.5) * 1e6 for _ in range(5000)]
    for nanos in times:
        late.add(8, int(nanos))
        late.add(200, int(10 * nanos))
    for size, factor in ((8, 1), (15, 1), (255, 10)):
        found = late.nanos(size)
        assert found is not None
        share = sum(factor * nanos > found for nanos in times) / len(times)
        assert 0.02 < share < 0.1
    assert late.nanos(16) is None
