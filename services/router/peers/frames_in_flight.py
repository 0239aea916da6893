"""The frames of one stream that are not answered yet, and the one timer that gives them up."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.router.peers.frame_lost import FrameLost

Answer = TypeVar("Answer")

# A deadline's timer that fires later than this share of its time says that the loop was busy, not
# the service.
MAX_LATE_SHARE = 0.1
# The least share of its time that a frame is given more then; else as long as the loop was busy, at
# most as much again.
MIN_EXTENSION_SHARE = 0.25


@dataclass(slots=True, eq=False)
class FrameInFlight(Generic[Answer]):
    """A frame on its way: who waits for it, when it was queued, and how long its service may take.

    `sent` and `due` are nanoseconds of the monotonic clock.
    """

    frame_id: int
    message: bytes
    answered: "asyncio.Future[Answer]"
    num_pairs: int
    num_experts: int
    sent: int
    remaining_nanos: int
    fitted_nanos: int = 0
    due: int = field(init=False)
    may_extend: bool = True

    def __post_init__(self) -> None:
        self.due = self.sent + self.remaining_nanos


class FramesInFlight(Generic[Answer]):
    """Frames by their number.

    `on_lost` is called with each that ends without an answer, `on_hung` when some were given up.

    There is a timer for the earliest deadline when it was set; a frame that is answered leaves it
    alone, so that in the usual course of things it fires once in a deadline's time and finds
    nothing due.
    """

    def __init__(
        self,
        address: str,
        on_lost: Callable[[FrameInFlight[Answer]], None],
        on_hung: Callable[[FrameLost], None],
    ) -> None:
        self._address = address
        self._on_lost = on_lost
        self._on_hung = on_hung
        self._frames: dict[int, FrameInFlight[Answer]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0  # what it was set for, by the monotonic clock

    def __len__(self) -> int:
        return len(self._frames)

    def begin(self, frame: FrameInFlight[Answer]) -> None:
        """A frame is on its way."""
        self._frames[frame.frame_id] = frame
        if self._timer is None or frame.due < self._timer_due:
            self._set_timer(frame.due, frame.sent)

    def end(self, frame_id: int) -> FrameInFlight[Answer] | None:
        """The frame is answered; None when it was given up or never sent."""
        return self._frames.pop(frame_id, None)

    def fail_all(self, error: FrameLost) -> None:
        """The stream is gone, and every frame with it."""
        self._stop_timer()
        frames, self._frames = self._frames, {}
        for frame in frames.values():
            self._lose(frame, error)

    def _set_timer(self, due: int, now: int) -> None:
        self._stop_timer()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_later((due - now) / 1e9, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """Give up what is due; a loop too busy to send a frame, or read its reply, gives it more
        time, once.
        """
        self._timer, now = None, time.perf_counter_ns()
        given_up = [
            frame_id for frame_id, frame in self._frames.items() if self._is_over(frame, now)
        ]
        error = None
        for frame in [self._frames.pop(frame_id) for frame_id in given_up]:
            waited = f"within {frame.remaining_nanos / 1e6:.0f} ms"
            error = FrameLost(
                f"expert service {self._address} did not answer a frame {waited}", "deadline"
            )
            self._lose(frame, error)
        if error is not None:
            self._on_hung(error)
        if self._frames:
            self._set_timer(min(frame.due for frame in self._frames.values()), now)

    @staticmethod
    def _is_over(frame: FrameInFlight[Answer], now: int) -> bool:
        late, given = now - frame.due, frame.remaining_nanos
        if late < 0:
            return False
        if not frame.may_extend or late <= MAX_LATE_SHARE * given:
            return True
        frame.may_extend = False
        frame.due = now + min(given, max(late, int(MIN_EXTENSION_SHARE * given)))
        return False

    def _lose(self, frame: FrameInFlight[Answer], error: FrameLost) -> None:
        self._on_lost(frame)
        if not frame.answered.done():
            frame.answered.set_exception(error)
