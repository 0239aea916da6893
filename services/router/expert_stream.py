"""One long-lived stream to one expert service: frames out, replies in, each frame answered exactly once."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import grpc

from services.router.arrivals import Arrivals
from services.router.call_failures import as_serving_errors
from services.router.frame_deadline import FrameDeadline
from services.router.receipt import ReplyTimes
from services.wire.errors import ServingError, Unavailable
from services.wire.frames import ReceivedReply, decode_response, encode_cancel

logger = logging.getLogger(__name__)

DISPATCH = "/moesaic.v1.ExpertService/Dispatch"
# How long a service may take to say that it listens on a stream.
FIRST_GRANT_SECONDS = 10.0
# A deadline's timer that fires later than this share of its time says that the loop was busy, not the service.
MAX_LATE_SHARE = 0.1


@dataclass(frozen=True)
class Answer:
    """A reply and when it came."""

    reply: ReceivedReply
    times: ReplyTimes


@dataclass
class _InFlight:
    answered: "asyncio.Future[Answer]"
    num_pairs: int
    sent: int
    timer: asyncio.TimerHandle


class ExpertStream:
    """The stream of one lane. Frames wait here only while the service has not granted their pairs.

    `send` is bounded by its callers: a lane has one layer's frames in flight at a time. A service that leaves a frame
    unanswered until its deadline counts as hung: the stream ends, and with it all that waits here.
    """

    def __init__(
        self, address: str, channel: grpc.aio.Channel, deadline: FrameDeadline, on_up: Callable[[], None]
    ) -> None:
        self.is_up = False
        self.has_answered = False
        self._on_up = on_up
        self._address = address
        self._open = channel.stream_stream(DISPATCH)
        self._deadline = deadline
        self._arrivals = Arrivals()
        self._in_flight: dict[int, _InFlight] = {}
        self._outbox: deque[tuple[bytes, int]] = deque()  # message, pairs
        self._outgoing = asyncio.Event()
        self._hung = asyncio.Event()
        self._next_frame_id = 0
        self._sent_pairs = 0
        self._granted_pairs = 0

    def send(self, encode: Callable[[int, int], bytes], num_pairs: int) -> "asyncio.Future[Answer]":
        """Queue the frame that `encode(frame_id, remaining_nanos)` writes.

        The future ends with the answer, or with Unavailable when the stream breaks or the frame's deadline passes.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        if not self.is_up:
            answered.set_exception(Unavailable(f"expert service {self._address} is not connected"))
            return answered
        frame_id, self._next_frame_id = self._next_frame_id, self._next_frame_id + 1
        remaining_nanos = self._deadline.nanos_for(num_pairs)
        message = encode(frame_id, remaining_nanos)
        timer = self._arm(frame_id, remaining_nanos, may_extend=True)
        self._in_flight[frame_id] = _InFlight(answered, num_pairs, time.perf_counter_ns(), timer)
        self._push(message, num_pairs)
        return answered

    def cancel(self, requests: Iterable[int]) -> None:
        """Tell the service, if it has frames of this lane, that nobody waits for these requests any more."""
        if self._in_flight:
            self._push(encode_cancel(requests), 0)

    async def run(self) -> None:
        """Keep the stream until it breaks; raises ServingError then. Frames in flight fail with it."""
        call = self._open()
        try:
            with as_serving_errors(self._address):
                async with asyncio.timeout(FIRST_GRANT_SECONDS):
                    await self._receive(call)  # the first response is a grant: the service is listening
            self.is_up = True
            self._on_up()
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._write(call))
                parts.create_task(self._read(call))
                parts.create_task(self._until_hung())
        finally:
            self.is_up = False
            call.cancel()
            self._fail_all(Unavailable(f"the stream to expert service {self._address} broke"))
            self._outbox.clear()

    async def _write(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            self._outgoing.clear()
            while self._outbox and self._sent_pairs + self._outbox[0][1] <= self._granted_pairs:
                message, num_pairs = self._outbox.popleft()
                self._sent_pairs += num_pairs
                with as_serving_errors(self._address):
                    await call.write(message)
            await self._outgoing.wait()

    async def _read(self, call: grpc.aio.StreamStreamCall) -> None:
        with as_serving_errors(self._address):
            while True:
                await self._receive(call)

    async def _until_hung(self) -> None:
        await self._hung.wait()
        raise Unavailable(f"expert service {self._address} left a frame unanswered")

    async def _receive(self, call: grpc.aio.StreamStreamCall) -> None:
        data = await call.read()
        if data is grpc.aio.EOF:
            raise Unavailable(f"expert service {self._address} ended the stream")
        response = decode_response(data)
        if response.granted_pairs > self._granted_pairs:
            self._granted_pairs = response.granted_pairs
            self._outgoing.set()
        if response.reply is not None:
            self._settle(response.reply)

    def _settle(self, reply: ReceivedReply) -> None:
        flight = self._in_flight.pop(reply.frame_id, None)
        if flight is None or flight.answered.done():
            return  # late: its deadline passed, or its step is gone
        flight.timer.cancel()
        self.has_answered = True
        timings = reply.timings
        compute = timings.decode_nanos + timings.compute_nanos + timings.encode_nanos
        arrived = self._arrivals.date(
            sent=flight.sent,
            read=time.perf_counter_ns(),
            server_nanos=timings.queue_nanos + compute,
            num_bytes=len(reply.rows_bytes),
        )
        self._deadline.observe(flight.num_pairs, arrived - flight.sent)
        times = ReplyTimes(self._address, flight.sent, arrived, timings.queue_nanos, compute)
        flight.answered.set_result(Answer(reply, times))

    def _arm(self, frame_id: int, remaining_nanos: int, *, may_extend: bool) -> asyncio.TimerHandle:
        loop, seconds = asyncio.get_running_loop(), remaining_nanos / 1e9
        due = loop.time() + seconds
        return loop.call_at(due, self._expire, frame_id, remaining_nanos, due if may_extend else None)

    def _expire(self, frame_id: int, remaining_nanos: int, due: float | None) -> None:
        """Give a frame up; once more time when the loop was too busy to have sent it or read its reply."""
        flight = self._in_flight[frame_id]
        late_seconds = 0.0 if due is None else asyncio.get_running_loop().time() - due
        if late_seconds > MAX_LATE_SHARE * remaining_nanos / 1e9:
            flight.timer = self._arm(frame_id, remaining_nanos, may_extend=False)
            return
        del self._in_flight[frame_id]
        if not flight.answered.done():
            message = f"expert service {self._address} did not answer a frame within {remaining_nanos / 1e6:.0f} ms"
            logger.warning("%s", message)
            flight.answered.set_exception(Unavailable(message))
        self._hung.set()

    def _fail_all(self, error: ServingError) -> None:
        for flight in self._in_flight.values():
            flight.timer.cancel()
            if not flight.answered.done():
                flight.answered.set_exception(error)
        self._in_flight.clear()

    def _push(self, message: bytes, num_pairs: int) -> None:
        self._outbox.append((message, num_pairs))
        self._outgoing.set()
