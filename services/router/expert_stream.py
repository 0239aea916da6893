"""One long-lived stream to one expert service: frames out, replies in, each frame answered exactly once."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import grpc

from services.router.arrivals import Arrivals
from services.router.call_failures import as_serving_errors
from services.router.flights import Flight, Flights
from services.router.frame_deadline import FrameDeadline
from services.router.receipt import ReplyTimes
from services.wire.errors import Unavailable
from services.wire.frames import ReceivedReply, decode_response, encode_cancel

DISPATCH = "/moesaic.v1.ExpertService/Dispatch"
# How long a service may take to say that it listens on a stream.
FIRST_GRANT_SECONDS = 10.0


@dataclass(slots=True)
class Answer:
    """A reply and when it came."""

    reply: ReceivedReply
    times: ReplyTimes


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
        self._hung = asyncio.Event()
        self._flights: Flights[Answer] = Flights(address, self._hung.set)
        self._outbox: deque[tuple[bytes, int]] = deque()  # message, pairs
        self._idle_writer: asyncio.Future[None] | None = None  # what the writer waits for, while it has nothing to do
        self._sent_pairs = 0
        self._granted_pairs = 0

    def send(self, encode: Callable[[int, int], bytes], num_pairs: int) -> "asyncio.Future[Answer]":
        """Queue the frame that `encode(frame_id, remaining_nanos)` writes.

        The future ends with the answer, or with Unavailable when the stream breaks or the frame's deadline passes.
        """
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self.is_up:
            answered.set_exception(Unavailable(f"expert service {self._address} is not connected"))
            return answered
        remaining_nanos = self._deadline.nanos_for(num_pairs)
        frame_id = self._flights.next_id
        message = encode(frame_id, remaining_nanos)
        self._flights.begin(Flight(answered, num_pairs, time.perf_counter_ns(), remaining_nanos))
        self._push(message, num_pairs)
        return answered

    def cancel(self, requests: Iterable[int]) -> None:
        """Tell the service, if it has frames of this lane, that nobody waits for these requests any more."""
        if len(self._flights):
            self._push(encode_cancel(requests), 0)

    async def run(self) -> None:
        """Keep the stream until it breaks; raises ServingError then. Frames in flight fail with it."""
        call = self._open()
        try:
            with as_serving_errors(self._address):
                async with asyncio.timeout(FIRST_GRANT_SECONDS):
                    self._receive(await call.read())  # the first response is a grant: the service is listening
            self.is_up = True
            self._on_up()
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._write(call))
                parts.create_task(self._read(call))
                parts.create_task(self._until_hung())
        finally:
            self.is_up = False
            call.cancel()
            self._flights.fail_all(Unavailable(f"the stream to expert service {self._address} broke"))
            self._outbox.clear()

    async def _write(self, call: grpc.aio.StreamStreamCall) -> None:
        loop, outbox = asyncio.get_running_loop(), self._outbox
        with as_serving_errors(self._address):
            while True:
                while outbox and self._sent_pairs + outbox[0][1] <= self._granted_pairs:
                    message, num_pairs = outbox.popleft()
                    self._sent_pairs += num_pairs
                    await call.write(message)
                self._idle_writer = loop.create_future()
                await self._idle_writer

    async def _read(self, call: grpc.aio.StreamStreamCall) -> None:
        with as_serving_errors(self._address):
            while True:
                self._receive(await call.read())

    async def _until_hung(self) -> None:
        await self._hung.wait()
        raise Unavailable(f"expert service {self._address} left a frame unanswered")

    def _receive(self, data: bytes) -> None:
        if data is grpc.aio.EOF:
            raise Unavailable(f"expert service {self._address} ended the stream")
        response = decode_response(data)
        if response.granted_pairs > self._granted_pairs:
            self._granted_pairs = response.granted_pairs
            if self._outbox:
                self._wake_writer()
        if response.reply is not None:
            self._settle(response.reply)

    def _settle(self, reply: ReceivedReply) -> None:
        flight = self._flights.end(reply.frame_id)
        if flight is None or flight.answered.done():
            return  # late: its deadline passed, or its step is gone
        self.has_answered = True
        timings, sent = reply.timings, flight.sent
        queue, compute = timings.queue_nanos, timings.decode_nanos + timings.compute_nanos + timings.encode_nanos
        arrived = self._arrivals.date(
            sent=sent,
            read=time.perf_counter_ns(),
            server_nanos=queue + compute,
            num_bytes=len(reply.rows_bytes),
        )
        self._deadline.observe(flight.num_pairs, arrived - sent)
        flight.answered.set_result(Answer(reply, ReplyTimes(self._address, sent, arrived, queue, compute)))

    def _push(self, message: bytes, num_pairs: int) -> None:
        self._outbox.append((message, num_pairs))
        self._wake_writer()

    def _wake_writer(self) -> None:
        idle = self._idle_writer
        if idle is not None and not idle.done():
            idle.set_result(None)
