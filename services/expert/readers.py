"""The threads that read experts: several where somebody waits for them, else one of low
priority.
"""

import asyncio
import os
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from services.expert.bank import Bank
from services.runtime.cores import num_cores
from services.wire.expert_key import ExpertKey

# Disks and page caches need no more.
MAX_READERS = 8
# Of the thread for what nobody waits for, so that serving goes first where they share a core. Not
# more, since the reader holds the interpreter's lock now and then: one that hardly gets the core
# makes the serving thread wait for that. A thread cannot take it back, so what is waited for has
# threads of its own.
BACKGROUND_NICENESS = 5


class Readers:
    """Reads experts into slots of the bank; never two at once into one slot."""

    def __init__(self, bank: Bank) -> None:
        num_readers = min(MAX_READERS, num_cores())
        # Of one load: enough that no thread waits for the next, and that loads take turns.
        self.most_at_once = 2 * num_readers
        self._bank = bank
        self._waited_for = ThreadPoolExecutor(num_readers, "read-experts")
        self._background = ThreadPoolExecutor(1, "read-in-background", _step_back)
        self._is_closed = False
        self._written: dict[int, asyncio.Future[None]] = {}  # slots that are being written to

    async def begin(
        self, key: ExpertKey, slot: int, *, in_background: bool = False
    ) -> "asyncio.Future[bytes]":
        """Begin to read an expert into a slot that nobody computes with: its content hash, or
        UnusableModel.

        Who gives a slot back while it is written to need not wait for that: what is read into it
        next waits here.
        """
        while slot in self._written:
            await asyncio.wait([self._written[slot]])
        threads = self._background if in_background else self._waited_for
        reading = threads.submit(self._bank.fill, slot, key.layer, key.expert)
        self._note_end(slot, reading)
        return asyncio.wrap_future(reading)

    def clear(self, slots: Iterable[int]) -> None:
        """Give the memory of slots that are free back to the system, before they are read into
        again.

        That is quick. Behind reads that nobody waits for, whoever does wait for one into such a
        slot would wait for all of them.
        """
        for slot in slots:
            if slot not in self._written and not self._is_closed:
                self._note_end(slot, self._waited_for.submit(self._bank.clear, slot))

    def close(self) -> None:
        """End the threads, when what they have begun is read."""
        self._is_closed = True
        for threads in (self._waited_for, self._background):
            threads.shutdown(wait=True, cancel_futures=True)

    def _note_end(self, slot: int, work: "Future[Any]") -> None:
        loop = asyncio.get_running_loop()
        written = self._written[slot] = loop.create_future()

        def end() -> None:
            del self._written[slot]
            written.set_result(None)

        work.add_done_callback(lambda _: loop.call_soon_threadsafe(end))


def _step_back() -> None:
    # On Linux niceness is a thread's, elsewhere the whole process's.
    if sys.platform.startswith("linux"):
        os.nice(BACKGROUND_NICENESS)
