"""One frame on its way through the service: what is to be computed of it, and the one answer that
it gets.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from moesaic.v1 import expert_pb2
from services.expert.compute import FrameWork
from services.runtime.failures import leave_aside
from services.wire.outcomes import FrameError, PairFailure, Timings
from services.wire.received import ReceivedFrame


class FrameAnswer(NamedTuple):
    """What became of a frame: rows of the pairs that were computed, and why the others were not."""

    timings: Timings
    rows: torch.Tensor | None = (
        None  # [computed pairs, hidden], or [rows, hidden] where sums were asked for
    )
    failures: tuple[PairFailure, ...] = ()
    error: FrameError | None = None
    batch_frames: int = 0


@dataclass(eq=False, slots=True)
class AdmittedFrame:
    """A frame that passed the checks. It is answered once: later answers are ignored."""

    frame: ReceivedFrame
    num_bytes: int  # of the message that the frame came in
    work: FrameWork
    failures: tuple[PairFailure, ...]  # of pairs that are not part of the work
    positions: tuple[int, ...] | None  # of the work's pairs in the frame; None for all
    deadline_nanos: int  # by the monotonic clock
    decode_nanos: int
    admitted_nanos: int
    deliver: Callable[["AdmittedFrame", FrameAnswer], None]
    is_answered: bool = False
    _cancelled: frozenset[int] = frozenset()

    @property
    def num_pairs(self) -> int:
        """Pairs to compute."""
        return len(self.work.slots)

    def forget(self, requests: Iterable[int]) -> bool:
        """Note that these requests are cancelled; whether nobody waits for the frame any more."""
        self._cancelled = self._cancelled.union(requests)
        # A frame may not say whom it is for: then it is never forgotten.
        return bool(self.frame.requests) and self._cancelled.issuperset(self.frame.requests)

    def finish_idle(self) -> None:
        """Answer a frame of which nothing can be computed here."""
        self._answer(FrameAnswer(self._waiting_timings(), failures=self.failures))

    def finish(
        self, rows: torch.Tensor, started_nanos: int, computed_nanos: int, batch_frames: int
    ) -> None:
        """Answer with what the work made: a row for each of its pairs, or for each row of the
        frame.
        """
        encode_nanos = time.monotonic_ns() - computed_nanos
        timings = Timings(
            self.decode_nanos,
            started_nanos - self.admitted_nanos,
            computed_nanos - started_nanos,
            encode_nanos,
        )
        self._answer(FrameAnswer(timings, rows, self.failures, None, batch_frames))

    def fail(self, reason: "expert_pb2.PairFailureReason.ValueType") -> None:
        """Answer that the work was not done, for this reason."""
        positions = self.positions
        pairs = tuple(range(self.num_pairs)) if positions is None else positions
        self._answer(
            FrameAnswer(
                self._waiting_timings(), failures=(*self.failures, PairFailure(reason, pairs))
            )
        )

    def refuse(self, error: FrameError) -> None:
        """Answer that the frame as a whole could not be served."""
        self._answer(FrameAnswer(self._waiting_timings(), error=error))

    def _waiting_timings(self) -> Timings:
        return Timings(self.decode_nanos, time.monotonic_ns() - self.admitted_nanos)

    def _answer(self, answer: FrameAnswer) -> None:
        if not self.is_answered:
            self.is_answered = True
            try:
                self.deliver(self, answer)
            except Exception as error:  # noqa: BLE001 -- the boundary of one frame: others are answered by the same task
                leave_aside(error, "delivering an answer")


def not_hosted(positions: Iterable[int]) -> PairFailure:
    """The failure of pairs whose expert is not ready here."""
    return PairFailure(expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED, tuple(positions))
