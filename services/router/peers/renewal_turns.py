"""Services are connected to anew one after the other: no two are away at the same moment, of which
one alone may have the experts that are needed.
"""

import asyncio
from contextlib import suppress


class RenewalTurns:
    """Shared by all peers. Nobody waits longer than `most_seconds` for the one before."""

    def __init__(self, most_seconds: float) -> None:
        self._most_seconds = most_seconds
        self._turn = asyncio.Lock()
        self._is_back = asyncio.Event()
        self._is_back.set()

    async def next(self) -> asyncio.Event:
        """Wait for the one before; returns what is to be set once the connection is used again."""
        async with self._turn:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._most_seconds):
                    await self._is_back.wait()
            self._is_back = asyncio.Event()
            return self._is_back
