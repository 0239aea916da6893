"""A share of frames is computed twice, and who is wrong is found out and used no more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.model.checkpoint import Checkpoint
from services.model.refusals import UnusableModel
from services.router.dispatch.audit_share import AuditShare
from services.router.dispatch.auditor import MAX_WAITING, Auditor
from services.router.dispatch.combine import ExactCombine, PartialCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.own_experts import OwnExperts
from services.router.dispatch.placement import Placement
from services.router.peers.frame_ids import FrameIds
from services.router.peers.question import Question
from services.wire.received import ReceivedFrame
from tests.checkpoints import save_tiny
from tests.local_experts import build_experts
from tests.router.behaviours import expect_in_order
from tests.router.scripted_streams import (
    HIDDEN,
    Behaviour,
    ScriptedExperts,
    ScriptedStream,
    busy,
    step_of,
    well,
)

LAYER, NUM_EXPERTS = 3, 4
SCALE = torch.arange(1.0, NUM_EXPERTS * HIDDEN + 1).view(NUM_EXPERTS, HIDDEN)
ROUTING = (
    torch.linspace(-1, 1, 4 * HIDDEN).view(4, HIDDEN),
    torch.tensor([[0, 1], [0, 2], [2, 3], [2, 3]]),
    torch.linspace(0.1, 0.9, 8).view(4, 2),
)


def flipped(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
    return {"rows": -rows}


def rounded_otherwise(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
    return {"rows": rows * (1 + 2**-20)}


class Scales:
    """Knows what the scripted services compute."""

    def answer(self, question: Question) -> torch.Tensor:
        mine = torch.from_numpy(question.experts.astype(np.int64))
        rows = question.rows[torch.from_numpy(question.pair_rows.astype(np.int64))]
        if question.weights is None:
            return rows * SCALE[mine]
        weighted = rows * SCALE[mine] * torch.from_numpy(question.weights.copy())[:, None]
        sums = torch.zeros(len(question.rows), HIDDEN)
        return sums.index_add(0, torch.from_numpy(question.pair_rows.astype(np.int64)), weighted)


class Unreadable:
    """Can say nothing."""

    def answer(self, question: Question) -> torch.Tensor:
        raise UnusableModel("the file has changed")


class Audited:
    """Scripted services that host everything, of which the first is asked by requests."""

    def __init__(
        self, *behaviours: Behaviour, judge: Any, is_exact: bool, sums: bool, share: float
    ) -> None:
        self.services = [
            ScriptedExperts(f"{number}:1", [ScriptedStream(SCALE, behaviour)])
            for number, behaviour in enumerate(behaviours)
        ]
        expect_in_order(service.pace for service in self.services)
        self.dispatcher = Dispatcher(
            num_experts=NUM_EXPERTS,
            hidden_size=HIDDEN,
            wire_dtype=torch.float32,
            combine=PartialCombine() if sums else ExactCombine(),
        )
        ready = np.ones((len(behaviours), NUM_EXPERTS), dtype=bool)
        self.dispatcher.place(Placement(self.services, {LAYER: ready}))
        self.auditor = Auditor(
            share, judge, lambda: self.dispatcher.placement, lambda one, other: is_exact
        )
        self.dispatcher.audit_by(self.auditor)

    @property
    def quarantined(self) -> list[str]:
        return [each.address for each in self.services if each.trust.is_quarantined]

    async def compute(self) -> torch.Tensor:
        return await self.dispatcher.compute(step_of([2, 2]), LAYER, *ROUTING, None)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 -- what a thread computes has no event
                await asyncio.sleep(0.001)


@asynccontextmanager
async def audited(
    *behaviours: Behaviour,
    judge: Any = None,
    is_exact: bool = False,
    sums: bool = False,
    share: float = 1.0,
) -> AsyncIterator[Audited]:
    made = Audited(*behaviours, judge=judge or Scales(), is_exact=is_exact, sums=sums, share=share)
    running = asyncio.create_task(made.auditor.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("sums", [False, True], ids=["pairs", "sums"])
@pytest.mark.parametrize(
    ("behaviours", "is_exact", "judge", "outcome", "quarantined"),
    [
        ((well, well), True, Scales(), "agreed", []),
        ((flipped, well), False, Scales(), "altered", ["0:1"]),
        ((well, flipped), True, Scales(), "altered", ["1:1"]),
        ((flipped, flipped), False, Scales(), "agreed", []),
        ((rounded_otherwise, well), False, Scales(), "agreed", []),
        ((rounded_otherwise, well), True, Scales(), "undecided", []),
        ((rounded_otherwise, well, well), True, Scales(), "altered", ["0:1"]),
        ((flipped, well, well), False, Unreadable(), "altered", ["0:1"]),
        ((flipped, well), False, Unreadable(), "undecided", []),
        ((flipped,), False, Scales(), "alone", []),
        ((flipped, busy), False, Scales(), "unanswered", []),
    ],
)
async def test_who_is_wrong_is_found_out_where_that_can_be(
    behaviours: tuple[Behaviour, ...],
    is_exact: bool,
    judge: Any,
    outcome: str,
    quarantined: list[str],
    sums: bool,
) -> None:
    async with audited(*behaviours, judge=judge, is_exact=is_exact, sums=sums) as made:
        await made.compute()
        await made.until(lambda: made.auditor.outcomes)
        assert dict(made.auditor.outcomes) == {outcome: 1}
        assert made.quarantined == quarantined
        for service in made.services:
            evidence = service.trust.evidence
            assert (evidence is not None) == (service.address in quarantined)


async def test_of_a_service_that_left_meanwhile_nothing_was_found_out() -> None:
    async with audited(flipped, well) as made:
        await made.compute()
        ready = np.ones((1, NUM_EXPERTS), dtype=bool)
        made.dispatcher.place(Placement(made.services[1:], {LAYER: ready}))
        await made.until(lambda: made.auditor.outcomes)
        assert dict(made.auditor.outcomes) == {"left": 1}


async def test_a_service_is_right_whose_rounding_leaves_something_of_the_routers_zeros() -> None:
    def rounded(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        return {"rows": torch.full_like(rows, 1e-9)}

    class Zeros:
        def answer(self, question: Question) -> torch.Tensor:
            return torch.zeros(question.num_answers, HIDDEN)

    async with audited(rounded, well, judge=Zeros()) as made:
        await made.compute()
        await made.until(lambda: made.auditor.outcomes)
        assert made.quarantined == ["1:1"]


async def test_a_service_is_wrong_that_gives_zeros_for_what_is_small() -> None:
    small = 1e-9

    class Small(Scales):
        def answer(self, question: Question) -> torch.Tensor:
            return super().answer(question) * small

    def right(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        return {"rows": rows * small}

    def zeros(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        return {"rows": torch.zeros_like(rows)}

    async with audited(right, zeros, judge=Small()) as made:
        await made.compute()
        await made.until(lambda: made.auditor.outcomes)
        assert made.quarantined == ["1:1"]


async def test_a_step_waits_for_no_audit_and_what_is_too_much_is_passed_over() -> None:
    async with audited(well, lambda frame, rows: None) as made:
        expected = await made.compute()
        for _ in range(MAX_WAITING + 2):
            assert torch.equal(await made.compute(), expected)
        assert made.auditor.outcomes["passed_over"] >= 1
        assert len(made.services[1].streams[0].frames) == 1  # which is never answered


async def test_without_a_share_nothing_is_computed_twice() -> None:
    async with audited(flipped, well, share=0.0) as made:
        for _ in range(5):
            await made.compute()
        assert made.services[1].streams[0].frames == []


def test_one_of_every_row_of_a_services_frames_is_chosen_at_a_place_that_differs() -> None:
    share = AuditShare(0.1)
    chosen = np.array([share.chosen(["a:1", "b:1"]) == [0] for _ in range(1000)]).reshape(-1, 10)
    other = AuditShare(0.1)
    both = [other.chosen(["a:1", "b:1"]) for _ in range(1000)]
    assert sum(map(len, both)) == 200
    assert (chosen.sum(1) <= 1).all()
    assert len(set(chosen.argmax(1).tolist())) > 5


def test_numbers_of_frames_follow_no_order() -> None:
    new_frame_id = FrameIds()
    numbers = [new_frame_id() for _ in range(1000)]
    assert len(set(numbers)) == 1000
    assert all(0 <= number < 1 << 63 for number in numbers)
    assert 400 < sum(one < other for one, other in pairwise(numbers)) < 600


@pytest.mark.parametrize("sums", [False, True])
def test_the_routers_own_answer_is_that_of_the_familys_experts(tmp_path: Path, sums: bool) -> None:
    checkpoint = Checkpoint.open(save_tiny("gpt_oss", tmp_path))
    rows = torch.randn(3, checkpoint.hidden_size, generator=torch.Generator().manual_seed(1))
    pair_rows, experts = np.array([0, 0, 2], np.uint32), np.array([5, 1, 5], np.uint32)
    weights = np.array([0.25, 0.5, 1.0], np.float32)
    question = Question(1, rows, pair_rows, experts, weights if sums else None)
    module = build_experts(checkpoint, 1, [5, 1], torch.float32)
    slots = torch.tensor([[0], [1], [0]])
    expected = module(rows[[0, 0, 2]], slots, torch.ones(3, 1))
    if sums:
        weighted = expected * torch.from_numpy(weights)[:, None]
        expected = torch.stack([weighted[0] + weighted[1], torch.zeros_like(rows[0]), weighted[2]])
    answer = OwnExperts(checkpoint, torch.float32).answer(question)
    torch.testing.assert_close(answer, expected)
