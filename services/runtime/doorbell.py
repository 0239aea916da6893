"""Wakes the one task that works off a queue, at less cost than an event."""

import asyncio


class Doorbell:
    """To be waited for by one task, which looks at its queue before it waits: a ring that nobody
    waits for is lost.
    """

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the task, if it waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def wait_for_ring(self) -> "asyncio.Future[None]":
        """To be awaited at once: ends with the next ring."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter
