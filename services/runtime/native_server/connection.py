"""One client's connection: what it says goes to its calls, and what they say in a turn of the loop
goes out in one write.
"""

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile

import grpc

from services.runtime.doorkeeping import Doorkeeper, host_of
from services.runtime.failures import failure_of
from services.runtime.native_server.asked import Entrance
from services.runtime.native_server.call import Call
from services.runtime.native_server.held import HeldRequests
from services.runtime.native_server.limits import Limits
from services.runtime.native_server.methods import Methods
from services.runtime.native_server.owner import ConnectionOwner
from services.runtime.native_server.turn import Turn
from services.runtime.socket_watch import SocketWatch
from services.wire import tls as wire_tls
from services.wire.connections import Connection, Kind
from services.wire.header_blocks import UnreadableBlock

logger = logging.getLogger(__name__)

NO_ERROR, COMPRESSION_ERROR = 0, 9
Event = tuple[int, int, bytes, int]


class ServerConnection:
    """Takes over a connected, non-blocking socket; with `tls` all goes through it."""

    def __init__(
        self,
        connected: socket.socket,
        peer: str,
        methods: Methods,
        limits: Limits,
        owner: ConnectionOwner,
        turn: Turn,
        tls: "wire_tls.Context | None" = None,
        doorkeeper: Doorkeeper | None = None,
    ) -> None:
        self.limits, self.host, self.own = limits, host_of(peer), owner.own
        self._wire = Connection(connected.detach(), True, *limits.of_wire, tls)
        self.pause, self.count_held = self._wire.pause, self._wire.count_held
        self._entrance = Entrance(methods, peer, doorkeeper)
        self._peer, self._owner, self._turn = peer, owner, turn
        self._calls: dict[int, Call] = {}
        self._heard: deque[Event] = deque()  # what this turn had no time for
        self.held = HeldRequests(self._wire, self._calls, self._heard, owner.holds)
        self._unasked: dict[int, float] = {}  # calls without their one request: since when
        self._waiting: dict[int, asyncio.Future[None]] = {}  # calls, for their readers
        self._refused: set[int] = set()  # calls of which a message was not taken
        self._num_sent: dict[int, int] = {}  # messages of this turn
        self._caller: wire_tls.Verified = {}  # whom TLS has verified, once a call asks
        self._is_flushing = self._is_closed = self._is_deferred = False
        self._last_begun, self._loop = 0, asyncio.get_running_loop()
        self._watch = SocketWatch(self._wire.fileno(), self._read, self._flush)
        self._preface = self._loop.call_later(
            limits.preface_seconds, lambda: None if self._wire.has_begun else self.close()
        )
        self._flush_soon()

    @property
    def is_busy(self) -> bool:
        """Whether it has calls, or answers that are not written yet."""
        return bool(self._calls) or (self._wire.is_secured and not self._wire.is_drained)

    def go_away(self) -> None:
        """Take no more calls."""
        self._wire.goaway(NO_ERROR)
        self._flush_soon()

    def give_way(self) -> None:
        """Close the connection, of which no call is asked for: its client connects anew."""
        self._leave(NO_ERROR)

    def end_late(self) -> None:
        """End the calls whose requests take too long to come; and all of them, for a header block
        that does.
        """
        seconds = self.limits.request_seconds
        late = self._wire.late(time.monotonic_ns() - int(seconds * 1e9))
        if 0 in late:
            self.give_way()
            return
        earliest = self._loop.time() - seconds
        late += takewhile(lambda stream: self._unasked[stream] < earliest, self._unasked)
        for call in [self._calls[stream] for stream in late if stream in self._calls]:
            call.end(grpc.StatusCode.DEADLINE_EXCEEDED, "a request took too long to come")

    def end_calls(self, code: grpc.StatusCode, details: str) -> None:
        """End every call that is not over."""
        for call in list(self._calls.values()):
            call.end(code, details)

    def close(self) -> None:
        """Close the socket; calls that are not over are given up, a few in each turn."""
        if self._is_closed:
            return
        self._is_closed = True
        self._preface.cancel()
        self._heard.clear()
        self._watch.close()
        self._wire.close()
        self.held.tell_change()
        self._owner.left(self)
        for stream in self._unasked:  # at once: nobody works for them
            self._calls.pop(stream).leave()
        self._turn.spread(self._leave_one)

    # As its calls see it.

    def send_headers(self, stream: int, block: bytes) -> None:
        """Before the first message."""
        self._wire.send_headers(stream, block, False)
        self._flush_soon()

    def send_trailers(self, stream: int, block: bytes) -> None:
        """After the last message; the call is over."""
        self._wire.send_headers(stream, block, True)
        self._flush_soon()
        self._forget(stream)

    def try_send(self, stream: int, message: bytes) -> bool:
        """Whether it was taken: not where too much is unsent, or the connection is over."""
        self._num_sent[stream] = self._num_sent.get(stream, 0) + 1
        self._flush_soon()
        is_taken = self._wire.send(stream, message)
        if not is_taken and stream in self._calls:
            self._refused.add(stream)
        return is_taken

    def flush_if_alone(self) -> None:
        """Write now what no other call could join."""
        if len(self._calls) == 1 and not self._watch.is_writing:
            self._write_out()

    def has_to_wait(self, stream: int) -> bool:
        """Whether the call has to let others send, or its client read."""
        most = self.limits.max_unsent_bytes // 2
        return stream in self._calls and (
            self._num_sent.get(stream, 0) >= self.limits.max_messages_in_turn
            or self._wire.unsent_bytes(stream) > self.limits.max_unsent_call_bytes
            or (stream in self._refused and self._wire.all_unsent_bytes() > most)
        )

    async def has_room(self, stream: int) -> None:
        """Wait until a write has made room, or the call is over."""
        waiting = self._waiting.setdefault(stream, self._loop.create_future())
        self._flush_soon()
        await asyncio.shield(waiting)

    def resume(self, stream: int, most: int) -> None:
        """Take what was kept meanwhile, and more; behind `most` messages the client is slowed down
        again.
        """
        kept = self._wire.resume(stream, most)
        if self._heard:  # its turn comes after what was read before
            self._heard += kept
        else:
            self._hear(kept)
        self._flush_soon()

    # As the loop sees it.

    def _read(self) -> None:
        if not self._turn.is_over():  # else the loop calls again
            self._go_on(self._wire.receive)

    def _read_later(self) -> None:
        if not self._is_deferred:
            self._is_deferred = True
            self._watch.watch_reading(False)
            self._turn.defer(self._hear_rest)

    def _hear_rest(self) -> None:
        self._is_deferred = False
        if not self._is_closed:
            self._watch.watch_reading(True)
            self._go_on(list)

    def _go_on(self, read: Callable[[], list[Event]]) -> None:
        try:
            self._hear(read())
        except Exception as error:  # noqa: BLE001 -- the boundary of one connection: others are served by the same loop
            failure_of(error, f"serving {self._peer}")
            self.close()
        else:
            if self._wire.is_over and not self._heard:
                logger.debug("%s left: %s", self._peer, self._wire.why())
                self.close()
            else:  # also where the client has done no more than give room to what waits
                self._flush_soon()
                if not self.held.tell_change():
                    self._read_later()

    def _flush_soon(self) -> None:
        """After what else there is to do in this turn."""
        if not self._is_flushing and not self._watch.is_writing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if self._is_closed:
            return
        self._num_sent.clear()
        self._write_out()
        self._wake()

    def _write_out(self) -> None:
        if not self._wire.flush():
            if not self._heard:
                self._go_on(self._wire.receive)
            return
        self._watch.watch_writing(self._wire.wants_write)
        if not self.is_busy:
            self._owner.settled()

    def _wake(self) -> None:
        for stream in [each for each in self._waiting if not self.has_to_wait(each)]:
            self._refused.discard(stream)
            self._waiting.pop(stream).set_result(None)

    def _forget(self, stream: int) -> None:
        self._unasked.pop(stream, None)
        if self._calls.pop(stream, None) is not None and not self._is_closed:
            self._tell_owner()
        self._refused.discard(stream)
        if (waiting := self._waiting.pop(stream, None)) is not None:
            waiting.set_result(None)

    def _leave(self, code: int) -> None:
        self._wire.goaway(code)
        self._wire.flush()
        self.close()

    def _hear(self, events: list[Event]) -> None:
        self._heard.extend(events)
        while self._heard:
            if self._turn.is_over():
                self._read_later()
                return
            stream, kind, data, _ = self._heard.popleft()
            if kind != Kind.HEADERS and kind != Kind.TRAILERS:
                self._take(stream, kind, data)
                continue
            try:
                self._take_headers(stream, data)
            except UnreadableBlock as error:  # nor can a later one be read
                logger.debug("%s: %s", self._peer, error)
                self._leave(COMPRESSION_ERROR)

    def _take(self, stream: int, kind: int, data: bytes) -> None:
        if (call := self._calls.get(stream)) is None:
            return
        if kind == Kind.REMOTE_ENDED:
            call.take_end()
            return
        self._turn.spend(len(data))
        if kind == Kind.RESET:
            self._forget(stream)
            call.leave()
            return
        if self._unasked.pop(stream, None) is not None:
            self._owner.works(self)
        call.take(data, is_compressed=kind == Kind.COMPRESSED)

    def _leave_one(self) -> bool:
        if self._calls:
            self._calls.popitem()[1].leave()
        return bool(self._calls)

    def _take_headers(self, stream: int, block: bytes) -> None:
        if stream <= self._last_begun:
            self._entrance.skip(block)  # nobody asks for a client's trailers
            return
        self._last_begun = stream
        self._caller = self._caller or wire_tls.verified(self._wire.peer)
        asked = self._entrance.ask(block, self._caller)
        if isinstance(asked, bytes):
            self.send_trailers(stream, asked)
            return
        call = Call(stream, self, asked)
        call.add_done_callback(lambda _: asked.leave())
        self._calls[stream] = call
        if not asked.method.takes_stream:
            self._unasked[stream] = self._loop.time()
        self._tell_owner()

    def _tell_owner(self) -> None:
        is_resting = len(self._calls) == len(self._unasked)  # none was asked for in full
        (self._owner.rests if is_resting else self._owner.works)(self)
