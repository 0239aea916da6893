"""Frames that are late are sent to another replica, too, and the first answer counts."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from services.router.dispatch.frame_pairs import DROPPED
from services.router.dispatch.gather import Answer
from services.router.dispatch.hedge_budget import HedgeBudget
from services.router.dispatch.placement import Placement, Service
from services.router.dispatch.scatter import Attempt, Outgoing, Scatter, SentFrame, attempt_at
from services.router.engine.spans import LayerSpans
from services.router.engine.step import Step
from services.router.peers.stream import TimedReply

# A frame that waits so many times as long as a late one does is urgent.
URGENT = 2.0


@dataclass(slots=True, eq=False)
class Sent:
    """The frames of an attempt at a layer, and since when they are on their way, in nanoseconds of
    the monotonic clock.
    """

    step: Step
    outgoing: Outgoing
    spans: LayerSpans
    frames: Sequence[SentFrame]
    began: int


class Hedging:
    """Sends copies by `scatter`, as far as `share` of the frames allows.

    A frame is late when such frames took less, but for one in twenty, at its service or at one that
    could compute it. Its copies go to services that are about as quick as that, and have less on
    the way than its own.
    """

    def __init__(self, share: float, scatter: Scatter) -> None:
        self._is_on = share > 0
        self._budget = HedgeBudget(share)
        self._scatter = scatter

    def note_frames(self, num_frames: int) -> None:
        """So many were sent, for which the budget grows."""
        self._budget.earn(num_frames)

    def watch(self, sent: Sent, placement: Placement) -> "Watch | None":
        """Look after frames that are awaited from now on; None where none could be hedged."""
        if not self._is_on:
            return None
        late = {
            frame: nanos
            for frame in sent.frames
            if not frame.answered.done()
            and (nanos := self._late_nanos(frame, sent.outgoing, placement)) is not None
        }
        return Watch(self, sent, placement, late) if late else None

    def copies_of(
        self,
        frame: SentFrame,
        sent: Sent,
        placement: Placement,
        late_nanos: float,
        *,
        is_urgent: bool,
    ) -> list[SentFrame]:
        """Send the pairs of a frame, late after `late_nanos`, to others; nothing where nobody is
        there, or no budget is left.
        """
        copies: list[SentFrame] = []
        if not self._budget.may_spend(is_urgent=is_urgent):
            return copies
        attempt = self._attempt(frame, sent.outgoing, placement, late_nanos)
        if attempt is None:
            return copies
        unserved = self._scatter(sent.step, sent.outgoing, attempt, sent.spans, copies)
        self._budget.spend(len(copies))
        if not unserved:
            return copies
        for copy in copies:
            copy.pass_over()
        return []

    def _late_nanos(
        self, frame: SentFrame, outgoing: Outgoing, placement: Placement
    ) -> float | None:
        """What such frames take, but for one in twenty, at the quickest replica."""
        candidates = placement.candidates(outgoing.layer, int(frame.pairs.experts[0]))
        if len(candidates) < 2:
            return None
        size = len(frame.pairs.positions)
        usual = (placement.services[number].pace.late_nanos(size) for number in candidates)
        return min((nanos for nanos in usual if nanos is not None), default=None)

    @staticmethod
    def _attempt(
        frame: SentFrame, outgoing: Outgoing, placement: Placement, late_nanos: float
    ) -> Attempt | None:
        """The frame's pairs for other services; None where one of its experts has no other that is
        less busy, and as quick.
        """
        services, layer = placement.services, outgoing.layer
        own = placement.service_at(frame.address)
        if own is None:
            return None
        size = len(frame.pairs.positions)

        def would_do(service: Service) -> bool:
            usual = service.pace.late_nanos(size)
            return (
                service.pace.num_in_flight < own.pace.num_in_flight
                and usual is not None
                and usual <= URGENT * late_nanos
            )

        choices: dict[int, list[int]] = {}
        for expert in set(frame.pairs.experts.tolist()):
            found = [one for one in placement.candidates(layer, expert) if would_do(services[one])]
            if not found:
                return None
            choices[expert] = found
        experts = np.full(len(outgoing.experts), DROPPED, dtype=np.int64)
        experts[frame.pairs.positions] = outgoing.experts[frame.pairs.positions]
        return attempt_at(placement, layer, experts, choices, failures={})


class Watch:
    """Of the frames of one attempt: sends copies of those that are late, until it is stopped.

    `late` has the nanoseconds after which each is late.
    """

    def __init__(
        self, hedging: Hedging, sent: Sent, placement: Placement, late: Mapping[SentFrame, float]
    ) -> None:
        self._hedging = hedging
        self._sent = sent
        self._placement = placement
        self._moments = sorted(
            (
                (sent.began + factor * nanos, factor == URGENT, frame, nanos)
                for frame, nanos in late.items()
                for factor in (1.0, URGENT)
            ),
            key=itemgetter(0),
            reverse=True,
        )
        self._copies: dict[SentFrame, list[SentFrame]] = {}
        self._overtaken: set[SentFrame] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer()

    def counting(
        self, answers: Sequence[tuple[SentFrame, Answer]]
    ) -> list[tuple[SentFrame, Answer]]:
        """The answers that count: those of frames, or of their copies."""
        counting: list[tuple[SentFrame, Answer]] = []
        for frame, answer in answers:
            if frame in self._overtaken:
                frame.pass_over()
                counting += [(copy, copy.answered.result()) for copy in self._copies[frame]]
            else:
                counting.append((frame, answer))
        return counting

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        for frame, copies in self._copies.items():
            has_won = frame in self._overtaken
            self._sent.step.clock.hedges[frame.address, has_won] += len(copies)
            if not has_won:
                for copy in copies:
                    copy.pass_over()

    def _set_timer(self) -> None:
        if self._moments:
            seconds = (self._moments[-1][0] - time.perf_counter_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._look)

    def _look(self) -> None:
        """Send copies of what is late by now, as far as that is allowed."""
        now = time.perf_counter_ns()
        while self._moments and self._moments[-1][0] <= now:
            _, is_urgent, frame, late_nanos = self._moments.pop()
            if frame.answered.done() or frame in self._copies:
                continue
            copies = self._hedging.copies_of(
                frame, self._sent, self._placement, late_nanos, is_urgent=is_urgent
            )
            if copies:
                self._follow(frame, copies)
        self._set_timer()

    def _follow(self, frame: SentFrame, copies: list[SentFrame]) -> None:
        self._copies[frame] = copies

        def note(_: "asyncio.Future[TimedReply]") -> None:
            if not frame.answered.done() and all(map(_is_computed, copies)):
                self._overtaken.add(frame)
                results = (copy.answered.result() for copy in copies)
                frame.answered.set_result(max(results, key=lambda reply: reply.times.arrived))

        for copy in copies:
            copy.answered.add_done_callback(note)


def _is_computed(frame: SentFrame) -> bool:
    answered = frame.answered
    if not answered.done() or answered.cancelled() or answered.exception() is not None:
        return False
    reply = answered.result().reply
    return reply.error is None and not reply.failures
