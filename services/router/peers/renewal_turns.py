"""Services are connected to anew one after the other: no two are away at the same moment, of which
one alone may have the experts that are needed.
"""

import asyncio
from contextlib import suppress


class RenewalTurn:
    """One service's turn, which lasts until it has been away and is back."""

    def __init__(self) -> None:
        self._is_away = False
        self.is_over = asyncio.Event()

    def go_away(self) -> None:
        """Its connection is gone."""
        self._is_away = True

    def come_back(self) -> None:
        """It is used. That says nothing before its connection is gone, which takes a moment."""
        if self._is_away:
            self.is_over.set()


class RenewalTurns:
    """Shared by all peers. Nobody waits longer than `most_seconds` for the one before."""

    def __init__(self, most_seconds: float) -> None:
        self._most_seconds = most_seconds
        self._next = asyncio.Lock()
        self._turn: RenewalTurn | None = None

    async def next(self) -> RenewalTurn:
        """Wait until the turn of the one before is over; returns the next."""
        async with self._next:
            if self._turn is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._most_seconds):
                        await self._turn.is_over.wait()
            self._turn = RenewalTurn()
            return self._turn
