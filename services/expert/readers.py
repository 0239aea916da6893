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
# After the last read, before slots are settled: a start is over then.
SETTLE_SECONDS = 5.0


class Readers:
    """Reads experts into slots of the bank; never two at once into one slot.

    Once nothing was read for `settle_seconds`, slots that were read into are settled, one after the
    other, behind all else.
    """

    def __init__(self, bank: Bank, settle_seconds: float = SETTLE_SECONDS) -> None:
        num_readers = min(MAX_READERS, num_cores())
        # Of one load: enough that no thread waits for the next, and that loads take turns.
        self.most_at_once = 2 * num_readers
        self._bank = bank
        self._waited_for = ThreadPoolExecutor(num_readers, "read-experts")
        self._background = ThreadPoolExecutor(1, "read-in-background", _step_back)
        self._settling = ThreadPoolExecutor(1, "settle-experts", _step_back)
        self._settle_seconds = settle_seconds
        self._settle_timer: asyncio.TimerHandle | None = None
        self._unsettled: dict[int, None] = {}  # slots, in the order in which they were read into
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
        self._unsettled[slot] = None
        return asyncio.wrap_future(reading)

    def clear(self, slots: Iterable[int]) -> None:
        """Give the memory of slots that are free back to the system, before they are read into
        again.

        That is quick. Behind reads that nobody waits for, whoever does wait for one into such a
        slot would wait for all of them.
        """
        for slot in slots:
            self._unsettled.pop(slot, None)
            if slot not in self._written and not self._is_closed:
                self._note_end(slot, self._waited_for.submit(self._bank.clear, slot))

    def close(self) -> None:
        """End the threads, when what they have begun is read."""
        self._is_closed = True
        if self._settle_timer is not None:
            self._settle_timer.cancel()
        for threads in (self._waited_for, self._background, self._settling):
            threads.shutdown(wait=True, cancel_futures=True)

    def _note_end(self, slot: int, work: "Future[Any]") -> None:
        loop = asyncio.get_running_loop()
        written = self._written[slot] = loop.create_future()

        def end() -> None:
            del self._written[slot]
            written.set_result(None)
            self._settle_later(loop)

        work.add_done_callback(lambda _: loop.call_soon_threadsafe(end))

    def _settle_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._settle_timer is not None:
            self._settle_timer.cancel()
        if not self._is_closed:
            self._settle_timer = loop.call_later(self._settle_seconds, self._settle_next, loop)

    def _settle_next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Settle a slot, then the next, until something is read: its end begins anew."""
        if self._is_closed or self._written or not self._unsettled:
            return
        slot = next(iter(self._unsettled))
        del self._unsettled[slot]

        def end(settling: "Future[bool]") -> None:
            if not (settling.cancelled() or settling.result()):
                self._unsettled[slot] = None
            self._settle_next(loop)

        settling = self._settling.submit(
            self._bank.settle, slot, lambda: not (self._is_closed or self._written)
        )
        settling.add_done_callback(lambda done: loop.call_soon_threadsafe(end, done))


def _step_back() -> None:
    # On Linux niceness is a thread's, elsewhere the whole process's.
    if sys.platform.startswith("linux"):
        os.nice(BACKGROUND_NICENESS)
