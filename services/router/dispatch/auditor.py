"""Has a share of frames computed by a second service, and finds out who is wrong where two
differ.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from services.model.refusals import UnusableModel
from services.router.dispatch.audit_case import Case, case_of, narrowed, part_of
from services.router.dispatch.audit_share import AuditShare
from services.router.dispatch.combine import Returned
from services.router.dispatch.placement import Placement, Service
from services.router.dispatch.scatter import Outgoing
from services.router.engine.step import Step
from services.router.peers.question import Question, tolerance
from services.runtime.failures import aside
from services.runtime.notice import Notice
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

# Cases that wait; what comes beyond is passed over.
MAX_WAITING = 16
# Of rows that two do not agree on so many are computed by the router.
MAX_JUDGED_ROWS = 8


class Judge(Protocol):
    """Computes experts itself."""

    def answer(self, question: Question) -> torch.Tensor:
        """What services should answer, near enough. Raises UnusableModel where it cannot tell."""
        ...


class Auditor:
    """Looks at `share` of each service's frames, one after the other, beside the steps: these wait
    for nothing here.

    `agree_to_the_bit` says of two addresses whether their services must compute the same bits; else
    a tolerance applies. `outcomes` counts what was found.
    """

    def __init__(
        self,
        share: float,
        judge: Judge,
        placement: Callable[[], Placement],
        agree_to_the_bit: Callable[[str, str], bool],
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._share = AuditShare(share)
        self._judge = judge
        self._placement = placement
        self._agree_to_the_bit = agree_to_the_bit
        self._waiting: list[Case] = []
        self._news = Notice()

    def chosen(self, addresses: Sequence[str]) -> list[int]:
        """Which of a layer's answers, from these addresses, are to be noted."""
        return self._share.chosen(addresses)

    def note(self, part: Returned, outgoing: Outgoing, step: Step) -> None:
        """Look at this answer some time."""
        if len(self._waiting) >= MAX_WAITING:
            self.outcomes["passed_over"] += 1
            return
        with aside("auditing a frame"):
            case = case_of(part, outgoing, step)
            if case is not None:
                self._waiting.append(case)
                self._news.send()

    async def run(self) -> None:
        """Look at one after the other, until cancelled."""
        while True:
            while not self._waiting:
                await self._news.wait()
            with aside("auditing a frame"):
                self.outcomes[await self._outcome(self._waiting.pop(0))] += 1

    async def _outcome(self, case: Case) -> str:
        second, question = self._other(case.question, {case.address})
        if second is None or question is None:
            return "alone"
        answer = await self._asked(second, question)
        if answer is None:
            return "unanswered"
        first = self._placement().service_at(case.address)
        if first is None:  # and nobody knows what became of it
            return "left"
        assert question.answer is not None
        same = replace(question, answer=answer)
        # By either's measure: of the two one may be nothing but zeros.
        if self._agree(first.address, second.address, question, answer) and self._agree(
            second.address, first.address, same, question.answer
        ):
            return "agreed"
        return await self._judged(question, answer, first, second)

    async def _judged(
        self, question: Question, answer: torch.Tensor, first: Service, second: Service
    ) -> str:
        """Find out who is wrong, and see to it that it is not used."""
        question, answer = _worst(question, answer)
        assert question.answer is not None
        said = [(first, question.answer), (second, answer)]
        right = await self._right_of(question)
        if right is not None:
            limit = tolerance(right.dtype)
            wrong = [who for who, rows in said if question.deviation(rows, right) > limit]
            if wrong or not self._agree_to_the_bit(first.address, second.address):
                return self._convicted(wrong, replace(question, answer=right))
        third, same = self._other(question, {first.address, second.address})
        if third is None or same is None or len(same.experts) < len(question.experts):
            return self._convicted([], question)
        right = await self._asked(third, question)
        if right is None:
            return self._convicted([], question)
        wrong = [
            who
            for who, rows in said
            if not self._agree(who.address, third.address, replace(question, answer=rows), right)
        ]
        return self._convicted(wrong if len(wrong) == 1 else [], replace(question, answer=right))

    def _convicted(self, wrong: Sequence[Service], question: Question) -> str:
        for service in wrong:
            service.trust.convict(question)
        if not wrong:
            key = min(question.keys)
            logger.warning(
                "two services computed expert %d of layer %d differently, within what roundings "
                "may do, or nobody could tell who is wrong",
                key.expert,
                key.layer,
            )
        return "altered" if wrong else "undecided"

    async def _right_of(self, question: Question) -> torch.Tensor | None:
        try:
            return await asyncio.to_thread(self._judge.answer, question)
        except UnusableModel as error:
            logger.warning("the router cannot compute an expert itself: %s", error)
            return None

    async def _asked(self, service: Service, question: Question) -> torch.Tensor | None:
        """What a service makes of it; nothing is thought of one that makes nothing of it."""
        if not service.streams:
            return None
        try:
            answered = await question.sent_by(service.streams[-1].send)  # the least used one
        except ServingError:
            return None
        asked = replace(question, answer=None)
        return None if asked.fault_of(answered.reply) else asked.rows_of(answered.reply)

    def _other(self, question: Question, but: Set[str]) -> tuple[Service | None, Question | None]:
        """One of the services that have most of the experts, and what it can be asked."""
        placement, layer = self._placement(), question.layer
        candidates: Counter[int] = Counter()
        for expert in question.experts.tolist():
            candidates.update(placement.candidates(layer, expert))
        for number in sorted(candidates, key=lambda each: (-candidates[each], random.random())):
            service = placement.services[number]
            replicas = placement.replicas[layer][number]
            asked = None if service.address in but else narrowed(question, replicas)
            if asked is not None:
                return service, asked
        return None, None

    def _agree(self, one: str, other: str, question: Question, answer: torch.Tensor) -> bool:
        """Whether the second of two services answered as the first did, by the question."""
        first = question.answer
        assert first is not None
        if self._agree_to_the_bit(one, other):
            return torch.equal(first.view(torch.uint8), answer.view(torch.uint8))
        return question.deviation(first, answer) <= tolerance(first.dtype)


def _worst(question: Question, answer: torch.Tensor) -> tuple[Question, torch.Tensor]:
    """What two services differ most on: some pairs of one expert, where pairs are answered."""
    assert question.answer is not None
    if question.weights is not None:
        return question, answer
    apart = question.deviations(answer, question.answer).numpy()
    mine = question.experts == question.experts[int(apart.argmax())]
    worst = np.argsort(np.where(mine, -apart, np.inf), kind="stable")[:MAX_JUDGED_ROWS]
    chosen = np.zeros(len(mine), dtype=bool)
    chosen[worst] = mine[worst]
    return part_of(question, chosen), answer[torch.from_numpy(np.flatnonzero(chosen))]
