"""One frame on its way through the service: what is to be computed of it, and the one answer that it gets."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from moesaic.v1 import expert_pb2
from services.expert.compute import Work
from services.wire.frames import ReceivedFrame
from services.wire.outcomes import FrameError, PairFailure, Timings

Reason = expert_pb2.PairFailureReason


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a frame: rows of the pairs that were computed, and why the others were not."""

    rows: torch.Tensor | None = None  # [computed pairs, hidden]
    failures: tuple[PairFailure, ...] = ()
    error: FrameError | None = None
    timings: Timings = field(default_factory=Timings)
    batch_frames: int = 0
    computed_nanos: int = 0  # by the monotonic clock, when the rows were there; 0 without rows


@dataclass(eq=False, slots=True)
class Job:
    """A frame that passed the checks. It is answered once: later answers are ignored."""

    frame: ReceivedFrame
    work: Work
    failures: tuple[PairFailure, ...]  # of pairs that are not part of the work
    positions: tuple[int, ...] | None  # of the work's pairs in the frame; None for all
    deadline_nanos: int  # by the monotonic clock
    decode_nanos: int
    deliver: Callable[["Job", Answer], None]
    admitted_nanos: int = field(default_factory=time.monotonic_ns)
    number: int = 0  # order of admission to the queue
    is_answered: bool = False
    _waiting_requests: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self._waiting_requests = set(self.frame.requests)

    @property
    def num_pairs(self) -> int:
        """Pairs to compute."""
        return len(self.work.slots)

    def forget(self, requests: Iterable[int]) -> bool:
        """Note that these requests are cancelled; whether nobody waits for the frame any more."""
        if not self._waiting_requests:
            return False  # it never said whom it is for
        self._waiting_requests.difference_update(requests)
        return not self._waiting_requests

    def finish_idle(self) -> None:
        """Answer a frame of which nothing can be computed here."""
        self._answer(Answer(None, self.failures, None, self._waited()))

    def finish(self, rows: torch.Tensor, started_nanos: int, computed_nanos: int, batch_frames: int) -> None:
        """Answer with the work's rows."""
        timings = Timings(self.decode_nanos, started_nanos - self.admitted_nanos, computed_nanos - started_nanos)
        self._answer(Answer(rows, self.failures, None, timings, batch_frames, computed_nanos))

    def fail(self, reason: "Reason.ValueType") -> None:
        """Answer that the work was not done, for this reason."""
        positions = self.positions
        pairs = tuple(range(self.num_pairs)) if positions is None else positions
        self._answer(Answer(None, (*self.failures, PairFailure(reason, pairs)), None, self._waited()))

    def refuse(self, error: FrameError) -> None:
        """Answer that the frame as a whole could not be served."""
        self._answer(Answer(error=error, timings=self._waited()))

    def _waited(self) -> Timings:
        return Timings(self.decode_nanos, time.monotonic_ns() - self.admitted_nanos)

    def _answer(self, answer: Answer) -> None:
        if not self.is_answered:
            self.is_answered = True
            self.deliver(self, answer)


def not_hosted(positions: Iterable[int]) -> PairFailure:
    """The failure of pairs whose expert is not ready here."""
    return PairFailure(Reason.PAIR_FAILURE_REASON_NOT_HOSTED, tuple(positions))
