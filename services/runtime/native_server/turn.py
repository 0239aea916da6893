"""What all connections together may have done in one turn of the loop, so that a crowd of them, or
one with much to say, keeps nobody waiting for long.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable


class Turn:
    """A turn begins with the first use in an iteration of the loop, and is over after so many
    seconds, or bytes of messages: they are not parsed yet.
    """

    def __init__(self, seconds: float, num_bytes: int) -> None:
        self._seconds = seconds
        self._num_bytes = self._num_bytes_left = num_bytes
        self._until: float | None = None
        # Those whose turn comes next, in their order.
        self._waiting: deque[Callable[[], None]] = deque()

    def is_over(self) -> bool:
        """Whether what can wait should."""
        now = time.perf_counter()
        if self._until is None:
            self._until = now + self._seconds
            asyncio.get_running_loop().call_soon(self._next)
        return now >= self._until or self._num_bytes_left <= 0

    def spend(self, num_bytes: int) -> None:
        """A message of so many bytes was handed on."""
        self._num_bytes_left -= num_bytes

    def defer(self, go_on: Callable[[], None]) -> None:
        """Have this called in a later turn, after those that wait already."""
        self._waiting.append(go_on)

    def _next(self) -> None:
        self._until, self._num_bytes_left = None, self._num_bytes
        for _ in range(len(self._waiting)):
            if self.is_over():
                break
            self._waiting.popleft()()
