"""Notices that a peer says nothing any more."""

import asyncio
from collections.abc import Callable

# The loop may have been held up for all of the time that the peer had to answer: what came
# meanwhile is read within this.
READ_SECONDS = 0.1


class Silence:
    """Calls `ask` when nothing was heard for `seconds`, or up to twice as long, and `give_up`, once
    and for all, when nothing was for `seconds` after that.
    """

    def __init__(
        self, seconds: float, ask: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self._seconds = seconds
        self._ask = ask
        self._give_up = give_up
        # Looked at now and then: to note the time of everything that is heard would cost more.
        self._has_heard = True
        self._num_silent = 0  # looks in a row
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
        self._num_silent = 0 if self._has_heard else self._num_silent + 1
        self._has_heard = False
        if self._num_silent > 2:
            self._give_up()
            return
        seconds = READ_SECONDS if self._num_silent == 2 else self._seconds
        self._timer = self._loop.call_later(seconds, self.look)
        if self._num_silent == 1:
            self._ask()
