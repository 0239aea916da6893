"""Wakes the one task that works off a queue, at less cost than an event."""

import asyncio


class Doorbell:
    """To be waited for by one task, which looks at its queue before it waits: a ring that nobody
    waits for is lost.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the task, if it waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def wait_for_ring(self) -> "asyncio.Future[None]":
        """To be awaited at once: ends with the next ring."""
        if self._loop is None:  # asked for once: it is a system call
            self._loop = asyncio.get_running_loop()
        self._waiter = self._loop.create_future()
        return self._waiter
