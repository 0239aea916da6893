"""One long-lived stream to one expert service: frames out, replies in, each frame answered exactly
once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.router.peers.entered_frame import EnteredFrame, ExchangeRecord
from services.router.peers.frame_ids import FrameIds
from services.router.peers.frame_lost import FrameLost
from services.router.peers.frames_in_flight import FrameInFlight, FramesInFlight
from services.router.peers.patience import PATIENCE
from services.router.peers.service_behaviour import ServiceBehaviour
from services.router.peers.transport import Connect, Transport
from services.router.times.arrivals import ReplyArrivals
from services.router.times.receipt import ReplyTimes
from services.runtime.doorbell import Doorbell
from services.wire.errors import Unavailable
from services.wire.frames import decode_response, encode_cancel
from services.wire.received import ReceivedReply

# Messages that wait to be written; many times what a lane has in flight.
MAX_QUEUED = 256


@dataclass(slots=True)
class TimedReply:
    """A reply and when it came."""

    reply: ReceivedReply
    times: ReplyTimes


class ExpertStream:
    """The stream of one lane, over what `connect` opens. Frames wait here only while the service
    does not take more.

    A service that leaves a frame unanswered until its deadline is suspect: it is sent nothing more
    until it says something, and the stream goes on. `on_change` is called when the stream is up,
    and when it is down.
    """

    def __init__(
        self,
        address: str,
        connect: Connect,
        behaviour: ServiceBehaviour,
        on_change: Callable[[], None],
        *,
        first_grant_seconds: float = PATIENCE.first_grant_seconds,
        max_queued: int = MAX_QUEUED,
        new_frame_id: Callable[[], int] | None = None,
    ) -> None:
        self.is_up = False
        self.has_answered = False
        self._on_change = on_change
        self._address = address
        self._connect = connect
        self._behaviour = behaviour
        self._first_grant_seconds = first_grant_seconds
        self._max_queued = max_queued
        self._arrivals = ReplyArrivals()
        self._in_flight = FramesInFlight[TimedReply](address, behaviour.lose, self._note_hung)
        self._new_frame_id = new_frame_id or FrameIds()
        # Frames, and messages that tell of what is given up.
        self._outbox: deque[FrameInFlight[TimedReply] | bytes] = deque()
        self._transport: Transport | None = None  # while the stream is up
        # Of the outbox, and not taken by the transport at once: the writing task's.
        self._unwritten: bytes | None = None
        self._outgoing = Doorbell()
        self._heard = asyncio.Event()  # from the service, which first says that it is listening
        self._sent_pairs = 0
        self._granted_pairs = 0

    @property
    def transport_kind(self) -> str:
        """What it is carried by, in a word; empty while it is not up."""
        return "" if self._transport is None else self._transport.kind

    def send(
        self, encode: Callable[[int, int], bytes], num_pairs: int, num_experts: int
    ) -> "asyncio.Future[TimedReply]":
        """Queue the frame that `encode(frame_id, remaining_nanos)` writes, of pairs of so many
        experts.

        The future ends with the answer, or with FrameLost when the stream breaks or the frame's
        deadline passes; at once when the stream is down, its service suspect, or the queue full.
        """
        answered: asyncio.Future[TimedReply] = asyncio.get_running_loop().create_future()
        refusal = self._refusal()
        if refusal is not None:
            answered.set_exception(refusal)
            return answered
        deadline = self._behaviour.deadline
        fitted = deadline.fitted_nanos(num_pairs)
        frame_id, remaining_nanos = self._new_frame_id(), deadline.nanos_for(fitted)
        message, sent = encode(frame_id, remaining_nanos), time.perf_counter_ns()
        frame = FrameInFlight(
            frame_id, message, answered, num_pairs, num_experts, sent, remaining_nanos, fitted
        )
        self._in_flight.begin(frame)
        self._behaviour.begin(frame)
        self._push(frame)
        return answered

    def enter(self, num_pairs: int, num_experts: int) -> EnteredFrame | None:
        """Enter a frame that an exchange is to send here and now; None where only `send` can."""
        native = None if self._transport is None else self._transport.native
        if (
            native is None
            or not native.is_free
            or self._outbox
            or self._unwritten is not None
            or self._sent_pairs + num_pairs > self._granted_pairs
            or self._behaviour.suspicion.is_suspect
        ):
            return None
        frame = self._behaviour.enter(native, self._new_frame_id(), num_pairs, num_experts)
        self._sent_pairs += num_pairs
        return frame

    def leave(self, frame: EnteredFrame) -> None:
        """It is not sent after all."""
        self._sent_pairs -= frame.num_pairs
        self._behaviour.lose(frame)

    def answered(self, frame: EnteredFrame, record: ExchangeRecord) -> ReplyTimes:
        """It was answered as it should be."""
        sent, arrived, decode, queue, compute, encode, granted, has_news = record
        compute += decode + encode
        self.has_answered = True
        self._behaviour.suspicion.heard_reply(is_late=False)
        self._behaviour.answered(frame, arrived - sent, queue, compute)
        self._catch_up(granted, has_news)
        return ReplyTimes(self._address, sent, arrived, queue, compute, decode)

    def go_on(self, frame: EnteredFrame, record: ExchangeRecord) -> "asyncio.Future[TimedReply]":
        """It is not answered yet, and ends as one that was sent by `send`."""
        answered: asyncio.Future[TimedReply] = asyncio.get_running_loop().create_future()
        if self.is_up:
            self._in_flight.begin(frame.in_flight(answered, sent=record[0]))
        else:
            self._behaviour.lose(frame)
            answered.set_exception(self._broken())
        self._catch_up(*record[6:])
        return answered

    def cancel(self, requests: Iterable[int]) -> None:
        """Tell the service, if it has frames of this lane, that nobody waits for these requests any
        more.
        """
        # To a service that takes nothing it can be left unsaid: its frames expire.
        if len(self._in_flight) and len(self._outbox) < self._max_queued:
            self._push(encode_cancel(requests))

    async def run(self) -> None:
        """Keep the stream until it breaks; raises a group of ServingErrors then.

        Frames in flight fail with it.
        """
        transport = self._connect()
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(transport.deliver(self._receive))
                await self._until_heard()
                self.is_up, self._transport = True, transport
                self._on_change()
                await self._write(transport)
        finally:
            self.is_up, self._transport = False, None
            transport.close()
            self._in_flight.fail_all(self._broken())
            self._outbox.clear()
            self._unwritten = None
            self._on_change()

    async def _until_heard(self) -> None:
        try:
            async with asyncio.timeout(self._first_grant_seconds):
                await self._heard.wait()
        except TimeoutError:
            raise Unavailable(f"expert service {self._address} did not answer in time") from None

    async def _write(self, transport: Transport) -> None:
        """Write what the transport does not take at once."""
        while True:
            while self._unwritten is not None:
                await transport.send(self._unwritten)
                self._unwritten = None
                self._send_on()
            await self._outgoing.wait_for_ring()

    def _send_on(self) -> None:
        """Send what may be sent, here and now where the transport takes it."""
        if self._transport is None:
            return
        while self._unwritten is None and (message := self._next_message()) is not None:
            if not self._transport.try_send(message):
                self._unwritten = message
                self._outgoing.ring()

    def _next_message(self) -> bytes | None:
        """What the service has credit for; frames that nobody waits for any more are
        passed over.
        """
        while self._outbox:
            queued = self._outbox[0]
            if isinstance(queued, bytes):
                self._outbox.popleft()
                return queued
            if queued.answered.done():
                self._outbox.popleft()
                self._forget(queued)
            elif self._sent_pairs + queued.num_pairs > self._granted_pairs:
                return None
            else:
                self._outbox.popleft()
                self._sent_pairs += queued.num_pairs
                message, queued.message = queued.message, b""  # which is not kept until its answer
                return message
        return None

    def _receive(self, data: bytes, arrived: int | None) -> None:
        response = decode_response(data)
        self._heard.set()
        self._grant(response.granted_pairs)
        if response.reply is not None:
            self._settle(response.reply, arrived)

    def _catch_up(self, granted_pairs: int, has_news: bool) -> None:
        """With what an exchange was granted, and left to the transport."""
        self._grant(granted_pairs)
        if has_news and self._transport is not None:
            self._transport.attend()

    def _grant(self, granted_pairs: int) -> None:
        if granted_pairs > self._granted_pairs:
            self._granted_pairs = granted_pairs
            if self._outbox:
                self._send_on()

    def _settle(self, reply: ReceivedReply, arrived: int | None) -> None:
        frame = self._in_flight.end(reply.frame_id)
        self._behaviour.suspicion.heard_reply(is_late=frame is None)
        if frame is None:
            return  # late or twice: whoever waited has been told otherwise
        self.has_answered = True
        timings, sent = reply.timings, frame.sent
        queue = timings.queue_nanos
        compute = timings.decode_nanos + timings.compute_nanos + timings.encode_nanos
        if arrived is None:
            arrived = self._arrivals.date(
                sent=sent,
                read=time.perf_counter_ns(),
                server_nanos=queue + compute,
                num_bytes=len(reply.rows_bytes),
            )
        arrived = max(arrived, sent)  # whatever becomes of the clock that dated it
        if reply.error is None and not reply.failures:
            self._behaviour.answered(frame, arrived - sent, queue, compute)
        else:
            self._behaviour.refused(frame)
        if not frame.answered.done():
            times = ReplyTimes(self._address, sent, arrived, queue, compute, timings.decode_nanos)
            frame.answered.set_result(TimedReply(reply, times))

    def _refusal(self) -> FrameLost | None:
        name = f"expert service {self._address}"
        if not self.is_up:
            return FrameLost(f"{name} is not connected", "broken")
        if self._behaviour.suspicion.is_suspect:
            return FrameLost(f"{name} is suspect", "deadline")
        if len(self._outbox) >= self._max_queued:
            return FrameLost(f"{name} takes nothing: {self._max_queued} frames wait", "deadline")
        return None

    def _broken(self) -> FrameLost:
        return FrameLost(f"the stream to expert service {self._address} broke", "broken")

    def _note_hung(self, error: FrameLost) -> None:
        # What was given up before it was written is not kept: nobody knows for how long nothing is
        # taken.
        queued, self._outbox = self._outbox, deque()
        for message in queued:
            if isinstance(message, FrameInFlight) and message.answered.done():
                self._forget(message)
            else:
                self._outbox.append(message)
        self._behaviour.suspicion.doubt(str(error))

    def _forget(self, frame: FrameInFlight[TimedReply]) -> None:
        if self._in_flight.end(frame.frame_id) is not None:  # its step is gone
            self._behaviour.lose(frame)

    def _push(self, message: FrameInFlight[TimedReply] | bytes) -> None:
        self._outbox.append(message)
        self._send_on()
