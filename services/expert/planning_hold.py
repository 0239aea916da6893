"""Which of several routers plans for all: whoever asked first, for as long as it asks again."""

import time
from collections.abc import Callable

from services.wire.errors import InvalidRequest

MAX_NAME_CHARACTERS = 64
MAX_SECONDS = 60.0


class PlanningHold:
    """One name and a time at which it lapses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._planner = ""
        self._until = 0.0

    def ask(self, router: str, seconds: float) -> str:
        """Hold it for `router`, if no other does; who holds it then.

        Raises InvalidRequest for a name or a time that is none.
        """
        if not 1 <= len(router) <= MAX_NAME_CHARACTERS:
            raise InvalidRequest(
                f"router has {len(router)} characters; it must have from 1 to {MAX_NAME_CHARACTERS}"
            )
        if not 0 < seconds <= MAX_SECONDS:
            raise InvalidRequest(
                f"hold_nanos is {seconds * 1e9:.0f}; it must be from 1 to {MAX_SECONDS * 1e9:.0f}"
            )
        now = self._clock()
        if router == self._planner or now >= self._until:
            self._planner, self._until = router, now + seconds
        return self._planner
