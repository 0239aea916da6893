"""Ctrl-C stops what is being done for the user, and leaves the conversation."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from services.runtime.own_task import run_in_own_task


class Interrupts:
    """Has SIGINT cancel the work that `run` does, or the `whole` where there is none."""

    def __init__(self, whole: asyncio.Task[Any]) -> None:
        self._whole = whole
        self._work: asyncio.Task[Any] | None = None

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear the signal until the block ends."""
        loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGINT, self._came)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    async def run(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Do the work; whether it ended by itself, rather than by the signal."""
        caller = asyncio.current_task()
        try:
            await run_in_own_task(self._known(work))
        except asyncio.CancelledError:
            if caller is not None and caller.cancelling():
                raise
            return False
        return True

    async def _known(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = asyncio.current_task()
        try:
            await work
        finally:
            self._work = None

    def _came(self) -> None:
        (self._work or self._whole).cancel()
