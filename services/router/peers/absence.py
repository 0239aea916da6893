"""How soon a service that is not there is looked for again, and that all of them together take
little time of those that are.
"""

import asyncio
from collections import deque
from enum import Enum

# One that comes is used soon, where few are waited for.
LEAST_SECONDS, MOST_SECONDS = 0.2, 5.0
# Of the time that it has been away, the pause until the next attempt.
SHARE_OF_ABSENCE = 0.1
# Attempts in vain of all together, and how many of them may be made at once after a quiet moment.
ATTEMPTS_PER_SECOND = 50.0
ATTEMPTS_AT_ONCE = 8


def pause_seconds(absent_seconds: float) -> float:
    """Until the next attempt to reach a service that has been away for so long."""
    return min(MOST_SECONDS, max(LEAST_SECONDS, SHARE_OF_ABSENCE * absent_seconds))


class Past(Enum):
    """What is known of an address."""

    REACHED = "a service was there"
    NEW = "nobody has tried it yet"
    IN_VAIN = "nobody was ever there"


class Attempts:
    """Spreads the attempts to reach services. One that is reached gives its turn back, so that only
    those that are not have others wait.
    """

    def __init__(
        self, per_second: float = ATTEMPTS_PER_SECOND, at_once: int = ATTEMPTS_AT_ONCE
    ) -> None:
        self._seconds_each = 1.0 / per_second
        self._at_once = at_once
        self._num_left = at_once
        self._waiting: dict[Past, deque[asyncio.Future[None]]] = {past: deque() for past in Past}
        self._is_turn_of_reached = True
        self._refilling: asyncio.TimerHandle | None = None

    async def turn(self, past: Past) -> None:
        """Return when a service may be tried. Every other turn is for those that were there once,
        and the rest for new addresses, the latest first: neither waits for a crowd at which nobody
        is.
        """
        may_begin: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[past].append(may_begin)
        self._admit()
        await may_begin

    def give_back(self) -> None:
        """A service was reached that had a turn."""
        self._num_left = min(self._at_once, self._num_left + 1)
        self._admit()

    def _admit(self) -> None:
        while self._num_left and (may_begin := self._next()) is not None:
            if not may_begin.done():  # nobody waits for one that was cancelled
                self._num_left -= 1
                may_begin.set_result(None)
        if self._num_left < self._at_once and self._refilling is None:
            loop = asyncio.get_running_loop()
            self._refilling = loop.call_later(self._seconds_each, self._refill)

    def _refill(self) -> None:
        self._refilling = None
        self.give_back()

    def _next(self) -> asyncio.Future[None] | None:
        reached, new, in_vain = (self._waiting[past] for past in Past)
        if reached and (self._is_turn_of_reached or not (new or in_vain)):
            self._is_turn_of_reached = False
            return reached.popleft()
        self._is_turn_of_reached = True
        if new:
            return new.pop()
        return in_vain.popleft() if in_vain else None
