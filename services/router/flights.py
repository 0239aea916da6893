"""The frames of one stream that are not answered yet, and the one timer that gives them up."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.router.call_failures import FrameLost

Answer = TypeVar("Answer")

# A deadline's timer that fires later than this share of its time says that the loop was busy, not the service.
MAX_LATE_SHARE = 0.1
# The least share of its time that a frame is given more then; else as long as the loop was busy, at most as much again.
MIN_EXTENSION_SHARE = 0.25


@dataclass(slots=True, eq=False)
class Flight(Generic[Answer]):
    """A frame on its way: who waits for it, when it was queued, and how long its service may take."""

    answered: "asyncio.Future[Answer]"
    num_pairs: int
    num_experts: int
    sent: int  # nanoseconds of the monotonic clock
    remaining_nanos: int
    fitted_nanos: int = 0
    due: float = field(init=False)  # by the loop's clock
    may_extend: bool = True


class Flights(Generic[Answer]):
    """Frames by their number.

    `on_lost` is called with each that ends without an answer, `on_hung` when some were given up.

    There is a timer for the earliest deadline when it was set; a frame that is answered leaves it alone, so that in the
    usual course of things it fires once in a deadline's time and finds nothing due.
    """

    def __init__(
        self, address: str, on_lost: Callable[[Flight[Answer]], None], on_hung: Callable[[FrameLost], None]
    ) -> None:
        self.next_id = 0
        self._address = address
        self._on_lost = on_lost
        self._on_hung = on_hung
        self._flights: dict[int, Flight[Answer]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._flights)

    def begin(self, flight: Flight[Answer]) -> None:
        """The frame `next_id` is on its way."""
        self._flights[self.next_id] = flight
        self.next_id += 1
        self._start(flight)

    def end(self, frame_id: int) -> Flight[Answer] | None:
        """The frame is answered; None when it was given up or never sent."""
        return self._flights.pop(frame_id, None)

    def fail_all(self, error: FrameLost) -> None:
        """The stream is gone, and every frame with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            self._lose(flight, error)

    def _start(self, flight: Flight[Answer]) -> None:
        loop = asyncio.get_running_loop()
        flight.due = loop.time() + flight.remaining_nanos / 1e9
        if self._timer is not None:
            if self._timer.when() <= flight.due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(flight.due, self._expire)

    def _expire(self) -> None:
        """Give up what is due; a loop too busy to send a frame, or read its reply, gives it more time, once."""
        self._timer = None
        loop = asyncio.get_running_loop()
        given_up = [frame_id for frame_id, flight in self._flights.items() if self._is_over(flight, loop.time())]
        error = None
        for flight in [self._flights.pop(frame_id) for frame_id in given_up]:
            waited = f"within {flight.remaining_nanos / 1e6:.0f} ms"
            error = FrameLost(f"expert service {self._address} did not answer a frame {waited}", "deadline")
            self._lose(flight, error)
        if error is not None:
            self._on_hung(error)
        if self._flights:
            self._timer = loop.call_at(min(flight.due for flight in self._flights.values()), self._expire)

    @staticmethod
    def _is_over(flight: Flight[Answer], now: float) -> bool:
        late, given = now - flight.due, flight.remaining_nanos / 1e9
        if late < 0:
            return False
        if not flight.may_extend or late <= MAX_LATE_SHARE * given:
            return True
        flight.may_extend = False
        flight.due = now + min(given, max(late, MIN_EXTENSION_SHARE * given))
        return False

    def _lose(self, flight: Flight[Answer], error: FrameLost) -> None:
        self._on_lost(flight)
        if not flight.answered.done():
            flight.answered.set_exception(error)
