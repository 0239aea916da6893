"""Tells tasks that something has changed, and wakes whoever waits for that."""

import asyncio


class Notice:
    """Every `send` wakes all that wait at the time. Who looks at the state and then waits at once
    misses nothing.
    """

    def __init__(self) -> None:
        self._sent = asyncio.Event()

    def send(self) -> None:
        """Wake them."""
        self._sent.set()
        self._sent = asyncio.Event()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until the next `send`, or for so long; whether there was one."""
        sent = self._sent
        try:
            async with asyncio.timeout(seconds):
                await sent.wait()
        except TimeoutError:
            return False
        return True
