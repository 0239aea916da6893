"""One long-lived stream to one expert service: frames out, replies in, each frame answered exactly once."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import grpc

from services.router.frame_deadline import FrameDeadline
from services.router.receipt import ReplyTimes
from services.wire.errors import ServingError, Unavailable, from_rpc
from services.wire.frames import ReceivedReply, decode_response, encode_cancel

logger = logging.getLogger(__name__)

DISPATCH = "/moesaic.v1.ExpertService/Dispatch"


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

    `send` is bounded by its callers: a lane has one layer's frames in flight at a time.
    """

    def __init__(
        self, address: str, channel: grpc.aio.Channel, deadline: FrameDeadline, on_up: Callable[[], None]
    ) -> None:
        self.is_up = False
        self._on_up = on_up
        self._address = address
        self._open = channel.stream_stream(DISPATCH)
        self._deadline = deadline
        self._in_flight: dict[int, _InFlight] = {}
        self._outbox: deque[tuple[bytes, int]] = deque()  # message, pairs
        self._outgoing = asyncio.Event()
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
        timer = loop.call_later(remaining_nanos / 1e9, self._expire, frame_id, remaining_nanos)
        sent = time.perf_counter_ns()
        self._in_flight[frame_id] = _InFlight(answered, num_pairs, sent, timer)
        self._push(encode(frame_id, remaining_nanos), num_pairs)
        return answered

    def cancel(self, requests: Iterable[int]) -> None:
        """Tell the service that nobody waits for these requests any more."""
        if self.is_up:
            self._push(encode_cancel(requests), 0)

    async def run(self) -> None:
        """Keep the stream until it breaks; raises ServingError then. Frames in flight fail with it."""
        call = self._open()
        try:
            await self._receive(call)  # the first response is a grant: the service is listening
            self.is_up = True
            self._on_up()
            async with asyncio.TaskGroup() as both:
                both.create_task(self._write(call))
                both.create_task(self._read(call))
        except* grpc.aio.AioRpcError as group:
            raise from_rpc(_first_of(group)) from None
        finally:
            self.is_up = False
            call.cancel()
            self._fail_all(Unavailable(f"the stream to expert service {self._address} broke"))
            self._outbox.clear()
            self._sent_pairs = self._granted_pairs = 0

    async def _write(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            self._outgoing.clear()
            while self._outbox and self._sent_pairs + self._outbox[0][1] <= self._granted_pairs:
                message, num_pairs = self._outbox.popleft()
                self._sent_pairs += num_pairs
                await call.write(message)
            await self._outgoing.wait()

    async def _read(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            await self._receive(call)

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
        arrived = time.perf_counter_ns()
        timings = reply.timings
        compute = timings.decode_nanos + timings.compute_nanos + timings.encode_nanos
        self._deadline.observe(flight.num_pairs, arrived - flight.sent)
        times = ReplyTimes(self._address, flight.sent, arrived, timings.queue_nanos, compute)
        flight.answered.set_result(Answer(reply, times))

    def _expire(self, frame_id: int, remaining_nanos: int) -> None:
        flight = self._in_flight.pop(frame_id, None)
        if flight is not None and not flight.answered.done():
            message = f"expert service {self._address} did not answer a frame within {remaining_nanos / 1e6:.0f} ms"
            logger.warning("%s", message)
            flight.answered.set_exception(Unavailable(message))

    def _fail_all(self, error: ServingError) -> None:
        for flight in self._in_flight.values():
            flight.timer.cancel()
            if not flight.answered.done():
                flight.answered.set_exception(error)
        self._in_flight.clear()

    def _push(self, message: bytes, num_pairs: int) -> None:
        self._outbox.append((message, num_pairs))
        self._outgoing.set()


def _first_of(group: BaseExceptionGroup) -> grpc.aio.AioRpcError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, grpc.aio.AioRpcError)
    return error
