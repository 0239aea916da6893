"""One router lane's stream over gRPC: frames in, one answer for each out, credit with every
answer.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from services.expert.admission import Contract, Slots
from services.expert.batcher import Batcher
from services.expert.frame_desk import FrameDesk
from services.runtime.doorbell import Doorbell
from services.wire.errors import InvalidRequest
from services.wire.frames import encode_grant

Write = Callable[[bytes], Awaitable[None]]

# A sender that does not read its answers is not read from while so many are unsent.
MAX_UNSENT = 64


class Window:
    """The credit of a stream: `window_pairs` and what was answered."""

    def __init__(self, window_pairs: int) -> None:
        self._taken_pairs = 0
        self._granted_pairs = window_pairs

    def take(self, num_pairs: int) -> bool:
        """As Credit says."""
        self._taken_pairs += num_pairs
        return self._taken_pairs <= self._granted_pairs

    def grant(self, num_pairs: int) -> int:
        """As Credit says."""
        self._granted_pairs += num_pairs
        return self._granted_pairs


class DispatchStream:
    """Reads frames, queues them and writes the answers, with one task for each direction and none
    for a frame.

    The sender may have `window_pairs` unanswered; a frame beyond that is answered as OVERLOADED.
    """

    def __init__(
        self, batcher: Batcher, contract: Contract, slots: Slots, *, window_pairs: int
    ) -> None:
        self._desk = FrameDesk(batcher, contract, slots, Window(window_pairs), self._send)
        self._outbox: deque[bytes] = deque([encode_grant(window_pairs)])
        self._outgoing = Doorbell()
        self._progress = asyncio.Event()
        self._is_ending = False
        self._refusal: InvalidRequest | None = None

    async def serve(
        self, requests: AsyncIterator[bytes], write: Write, draining: asyncio.Event
    ) -> None:
        """Serve until the sender has ended its side, or `draining` is set, and every frame is
        answered.

        Raises InvalidRequest, after the answers to the frames before, when a message is none.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(write))
                reader = tasks.create_task(self._read(requests))
                drain = tasks.create_task(draining.wait())
                await asyncio.wait((reader, drain), return_when=asyncio.FIRST_COMPLETED)
                reader.cancel()
                drain.cancel()
                while self._desk.has_unanswered:
                    await self._wait_for_progress()
                self._is_ending = True
                self._outgoing.ring()
        finally:
            self._desk.abandon()
        if self._refusal is not None:
            raise self._refusal

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for data in requests:
                self._desk.receive(data, time.monotonic_ns())
                while len(self._outbox) > MAX_UNSENT:
                    await self._wait_for_progress()
        except InvalidRequest as error:
            self._refusal = error

    async def _write(self, write: Write) -> None:
        while True:
            while self._outbox:
                await write(self._outbox.popleft())
                self._progress.set()
            if self._is_ending:
                return
            await self._outgoing.wait_for_ring()

    def _send(self, message: bytes) -> None:
        self._outbox.append(message)
        self._outgoing.ring()
        self._progress.set()

    async def _wait_for_progress(self) -> None:
        """Wait until an answer is made or written."""
        self._progress.clear()
        await self._progress.wait()
