"""The frames of one stream that are not answered yet, and the one timer that gives them up."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.wire.errors import ServingError, Unavailable

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# A deadline's timer that fires later than this share of its time says that the loop was busy, not the service.
MAX_LATE_SHARE = 0.1


@dataclass(slots=True)
class Flight(Generic[Answer]):
    """A frame on its way: who waits for it, when it was queued, and how long its service may take."""

    answered: "asyncio.Future[Answer]"
    num_pairs: int
    sent: int  # nanoseconds of the monotonic clock
    remaining_nanos: int
    due: float = field(init=False)  # by the loop's clock
    may_extend: bool = True


class Flights(Generic[Answer]):
    """Frames by their number. `on_hung` is called when one is given up.

    There is a timer for the earliest deadline when it was set; a frame that is answered leaves it alone, so that in the
    usual course of things it fires once in a deadline's time and finds nothing due.
    """

    def __init__(self, address: str, on_hung: Callable[[], None]) -> None:
        self.next_id = 0
        self._address = address
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

    def fail_all(self, error: ServingError) -> None:
        """The stream is gone, and every frame with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for flight in self._flights.values():
            if not flight.answered.done():
                flight.answered.set_exception(error)
        self._flights.clear()

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
        now = loop.time()
        for frame_id, flight in list(self._flights.items()):
            if flight.due > now:
                continue
            if flight.may_extend and now - flight.due > MAX_LATE_SHARE * flight.remaining_nanos / 1e9:
                flight.may_extend = False
                flight.due = now + flight.remaining_nanos / 1e9
                continue
            del self._flights[frame_id]
            self._give_up(flight)
        if self._flights:
            self._timer = loop.call_at(min(flight.due for flight in self._flights.values()), self._expire)

    def _give_up(self, flight: Flight[Answer]) -> None:
        if not flight.answered.done():
            message = (
                f"expert service {self._address} did not answer a frame within {flight.remaining_nanos / 1e6:.0f} ms"
            )
            logger.warning("%s", message)
            flight.answered.set_exception(Unavailable(message))
        self._on_hung()
