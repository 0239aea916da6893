"""One router lane's stream: frames in, one answer for each out, credit with every answer."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from moesaic.v1 import expert_pb2
from services.expert import metrics, spans
from services.expert.admission import Contract, Slots, admit
from services.expert.admitted_frame import AdmittedFrame, FrameAnswer
from services.expert.batcher import Batcher
from services.runtime.doorbell import Doorbell
from services.runtime.failures import failure_of
from services.wire.bad_frame import BadFrame
from services.wire.errors import InvalidRequest
from services.wire.frames import decode_request, encode_grant, encode_reply
from services.wire.outcomes import FrameError
from services.wire.received import Cancel, ReceivedFrame

Write = Callable[[bytes], Awaitable[None]]

# A sender that does not read its answers is not read from while so many are unsent.
MAX_UNSENT = 64


class DispatchStream:
    """Reads frames, queues them and writes the answers, with one task for each direction and none
    for a frame.

    The sender may have `window_pairs` unanswered; a frame beyond that is answered as OVERLOADED.
    """

    def __init__(
        self, batcher: Batcher, contract: Contract, slots: Slots, *, window_pairs: int
    ) -> None:
        self._batcher = batcher
        self._contract = contract
        self._slots = slots
        self._taken_pairs = 0
        self._granted_pairs = window_pairs  # the window and what was answered
        self._unanswered: set[AdmittedFrame] = set()
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
                while self._unanswered:
                    await self._wait_for_progress()
                self._is_ending = True
                self._outgoing.ring()
        finally:
            self._abandon()
        if self._refusal is not None:
            raise self._refusal

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for data in requests:
                self._receive(data)
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

    def _receive(self, data: bytes) -> None:
        received = time.monotonic_ns()
        try:
            request = decode_request(data)
            if isinstance(request, Cancel):
                self._cancel(request)
            else:
                self._submit(request, len(data), received)
        except BadFrame as error:
            self._taken_pairs += error.num_pairs
            self._granted_pairs += error.num_pairs
            metrics.record_invalid_frame()
            self._refuse(error)

    def _refuse(self, error: BadFrame) -> None:
        message = encode_reply(
            frame_id=error.frame_id,
            error=FrameError(error.status.value[0], str(error)),
            granted_pairs=self._granted_pairs,
            checksum=error.has_checksum,
        )
        self._send(message)

    def _submit(self, frame: ReceivedFrame, num_bytes: int, received: int) -> None:
        try:
            admitted = admit(frame, num_bytes, self._contract, self._slots, received, self._deliver)
        except BadFrame:
            raise
        except Exception as error:  # the boundary of one frame: the stream goes on
            failure, num_pairs = failure_of(error, "taking a frame in"), len(frame.pair_rows)
            raise BadFrame(
                frame.frame_id,
                str(failure),
                num_pairs,
                status=failure.status,
                has_checksum=frame.has_checksum,
            ) from error
        self._taken_pairs += len(frame.pair_rows)
        self._unanswered.add(admitted)
        if self._taken_pairs > self._granted_pairs:
            admitted.fail(expert_pb2.PAIR_FAILURE_REASON_OVERLOADED)
        else:
            self._batcher.submit(admitted)

    def _cancel(self, cancel: Cancel) -> None:
        unwanted = [admitted for admitted in self._unanswered if admitted.forget(cancel.requests)]
        for admitted in unwanted:
            if self._batcher.drop(admitted):
                admitted.fail(expert_pb2.PAIR_FAILURE_REASON_CANCELLED)

    def _deliver(self, admitted: AdmittedFrame, answer: FrameAnswer) -> None:
        if admitted not in self._unanswered:
            return  # the stream is gone
        self._unanswered.remove(admitted)
        self._granted_pairs += len(admitted.frame.pair_rows)
        try:
            message = self._encode(admitted, answer)
        except Exception as error:  # noqa: BLE001 -- the boundary of one frame: its sender has to hear of it
            failure = failure_of(error, "answering a frame")
            answer = FrameAnswer(
                answer.timings, error=FrameError(failure.status.value[0], str(failure))
            )
            message = self._encode(admitted, answer)
        self._send(message)
        metrics.record_answer(admitted, answer)
        spans.record_frame(admitted, answer)

    def _encode(self, admitted: AdmittedFrame, answer: FrameAnswer) -> bytes:
        return encode_reply(
            frame_id=admitted.frame.frame_id,
            rows=answer.rows,
            failures=answer.failures,
            error=answer.error,
            timings=answer.timings,
            batch_frames=answer.batch_frames,
            granted_pairs=self._granted_pairs,
            checksum=admitted.frame.has_checksum,
        )

    def _send(self, message: bytes) -> None:
        self._outbox.append(message)
        self._outgoing.ring()
        self._progress.set()

    def _abandon(self) -> None:
        for admitted in self._unanswered:
            self._batcher.drop(admitted)
        self._unanswered.clear()

    async def _wait_for_progress(self) -> None:
        """Wait until an answer is made or written."""
        self._progress.clear()
        await self._progress.wait()
