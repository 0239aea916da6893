"""Notices that a peer says nothing any more."""

import asyncio
from collections.abc import Callable


class Silence:
    """Calls `ask` when nothing was heard for a while, and `give_up`, once and for all, when nothing
    was for as long again. Each while is `seconds` to twice of them, the second one `seconds`.
    """

    def __init__(
        self, seconds: float, ask: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self._seconds = seconds
        self._ask = ask
        self._give_up = give_up
        # Looked at now and then: to note the time of everything that is heard would cost more.
        self._has_heard = True
        self._has_asked = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self.look)

    def hear(self) -> None:
        """The peer has said something."""
        self._has_heard = True

    def close(self) -> None:
        """Listen no more."""
        self._timer.cancel()

    def look(self) -> None:
        """See whether something was heard since the last look; the loop calls it."""
        if self._has_asked and not self._has_heard:
            self._give_up()
            return
        self._timer = self._loop.call_later(self._seconds, self.look)
        self._has_asked = not self._has_heard
        self._has_heard = False
        if self._has_asked:
            self._ask()
