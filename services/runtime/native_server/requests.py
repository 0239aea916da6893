"""The requests of one call that its handler has not taken yet."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

from services.runtime.native_server.limits import Limits

# What a message costs beside its bytes.
MESSAGE_BYTES = 100


class Requests:
    """An iterator for the handler; what it does not take in time slows the client down.

    `pause` and `resume` do that. `resume` is given a number, may bring as many further messages, at
    once or in parts, and then leaves the client paused. Messages stay compressed until the handler
    asks for them. `count` hears how many more bytes are held here, or fewer, and says whether that
    is within what the connection may hold.
    """

    def __init__(
        self,
        limits: Limits,
        pause: Callable[[], None],
        resume: Callable[[int], None],
        count: Callable[[int], bool],
        decompressed: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        self._limits = limits
        self._pause = pause
        self._resume = resume
        self._count = count
        self._decompressed = decompressed
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self.num_bytes = 0  # held
        self._is_paused = False
        self._num_resumed = 0  # messages until the client is paused by what `resume` was given
        self._has_ended = False
        self._news: asyncio.Future[None] | None = None

    def add(self, message: bytes, *, is_compressed: bool = False) -> bool:
        """A message came. Whether the connection may hold it."""
        self._waiting.append((message, is_compressed))
        if not self._hold(MESSAGE_BYTES + len(message)):
            return False
        is_last = self._num_resumed == 1
        self._num_resumed = max(0, self._num_resumed - 1)
        if not self._is_paused and (is_last or self._is_full()):
            self._is_paused = True
            self._pause()
        self._ring()
        return True

    def drop(self) -> None:
        """Nobody asks for messages any more."""
        self._waiting.clear()
        self._hold(-self.num_bytes)

    def end(self) -> None:
        """No more will come."""
        self._has_ended = True
        self._ring()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._is_paused:
                await asyncio.sleep(0)  # others get their turn, however much has come
                self._is_paused = False
                self._num_resumed = self._limits.max_waiting_requests
                self._resume(self._num_resumed)
                continue
            if self._has_ended:
                raise StopAsyncIteration
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        message, is_compressed = self._waiting.popleft()
        self._hold(-MESSAGE_BYTES - len(message))
        return await self._decompressed(message) if is_compressed else message

    def _is_full(self) -> bool:
        return (
            len(self._waiting) >= self._limits.max_waiting_requests
            or self.num_bytes >= self._limits.max_waiting_request_bytes
        )

    def _hold(self, change: int) -> bool:
        self.num_bytes += change
        return self._count(change)

    def _ring(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
