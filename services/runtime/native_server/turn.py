"""What all connections together may have done in one turn of the loop, so that a crowd of them, or
one with much to say, keeps nobody waiting for long.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable


class Turn:
    """A turn begins with the first use in an iteration of the loop, and is over after so many
    seconds, bytes of messages, which are not parsed yet, or calls whose tasks have something to do.
    """

    def __init__(self, seconds: float, num_bytes: int, num_calls: int) -> None:
        self._seconds = seconds
        self._num_bytes = self._num_bytes_left = num_bytes
        self._num_calls = self._num_calls_left = num_calls
        self._until: float | None = None
        # Those whose turn comes next, in their order.
        self._waiting: deque[Callable[[], None]] = deque()

    def is_over(self) -> bool:
        """Whether what can wait should."""
        now = time.perf_counter()
        if self._until is None:
            self._until = now + self._seconds
            asyncio.get_running_loop().call_soon(self._next)
        return now >= self._until or self._num_bytes_left <= 0 or self._num_calls_left <= 0

    def spend(self, num_bytes: int = 0) -> None:
        """A call has something to do: a message of so many bytes, or its end."""
        self._num_bytes_left -= num_bytes
        self._num_calls_left -= 1

    def defer(self, go_on: Callable[[], None]) -> None:
        """Have this called in a later turn, after those that wait already."""
        self._waiting.append(go_on)

    def spread(self, work: Callable[[], bool]) -> None:
        """Have this called, which has a call do something each time, until it says that nothing is
        left; over as many turns as that takes.
        """
        while not self.is_over():
            self.spend()
            if not work():
                return
        self.defer(lambda: self.spread(work))

    def _next(self) -> None:
        self._until = None
        self._num_bytes_left, self._num_calls_left = self._num_bytes, self._num_calls
        for _ in range(len(self._waiting)):
            if self.is_over():
                break
            self._waiting.popleft()()
