"""One client's connection: what it says goes to its calls, and what they say in a turn of the loop
goes out in one write.
"""

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import grpc

from services.runtime import call_headers
from services.runtime.failures import failure_of
from services.runtime.native_server.call import Call
from services.runtime.native_server.compression import ACCEPTED
from services.runtime.native_server.limits import Limits
from services.runtime.native_server.metadata import metadata_of
from services.runtime.native_server.methods import Methods
from services.runtime.socket_watch import SocketWatch
from services.wire.connections import Connection, Kind
from services.wire.errors import InvalidRequest
from services.wire.header_blocks import HeaderDecoder
from services.wire.tls import Verified, verified

if TYPE_CHECKING:  # it may not have been built
    from services.wire.tls import Context

logger = logging.getLogger(__name__)

NO_ERROR, COMPRESSION_ERROR = 0, 9
Event = tuple[int, int, bytes, int]


class ConnectionOwner(Protocol):
    """The server."""

    def own(self, task: "asyncio.Task[None]") -> None:
        """Keep a call's task until it has ended."""

    def settled(self) -> None:
        """The connection has no call now, and nothing to write."""

    def left(self, connection: "ServerConnection") -> None:
        """The connection is gone."""


class ServerConnection:
    """Takes over a connected, non-blocking socket; with `tls` all goes through it."""

    def __init__(
        self,
        connected: socket.socket,
        peer: str,
        methods: Methods,
        limits: Limits,
        owner: ConnectionOwner,
        tls: "Context | None" = None,
    ) -> None:
        self.limits = limits
        self.own = owner.own
        self._wire = Connection(
            connected.detach(),
            True,
            limits.max_message_bytes,
            limits.max_streams,
            limits.max_unsent_bytes,
            tls,
        )
        self._peer = peer
        self._peer_names: Verified | None = None  # until the first call asks
        self._methods = methods
        self._owner = owner
        self._decoder = HeaderDecoder()
        self._calls: dict[int, Call] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}  # calls, for their readers
        self._refused: set[int] = set()  # calls of which a message was not taken
        self._num_sent: dict[int, int] = {}  # messages of this turn
        self._last_begun = 0  # stream
        self._is_flushing = self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._watch = SocketWatch(self._wire.fileno(), self._read, self._flush)
        self._preface = self._loop.call_later(limits.preface_seconds, self._close_if_silent)
        self._flush_soon()

    @property
    def is_busy(self) -> bool:
        """Whether it has calls, or answers that are not written yet. Nobody is owed anything before
        the handshake is over.
        """
        return bool(self._calls) or (self._wire.is_secured and not self._wire.is_drained)

    def go_away(self) -> None:
        """Take no more calls."""
        self._wire.goaway(NO_ERROR)
        self._flush_soon()

    def end_calls(self, code: grpc.StatusCode, details: str) -> None:
        """End every call that is not over."""
        for call in list(self._calls.values()):
            call.end(code, details)

    def close(self) -> None:
        """Close the socket; calls that are not over are given up."""
        if self._is_closed:
            return
        self._is_closed = True
        self._preface.cancel()
        self._watch.close()
        self._wire.close()
        for call in list(self._calls.values()):
            call.leave()
        self._calls.clear()
        self._wake()
        self._owner.left(self)

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
        return stream in self._calls and (
            self._num_sent.get(stream, 0) >= self.limits.max_messages_in_turn
            or self._wire.unsent_bytes(stream) > self.limits.max_unsent_call_bytes
            or (stream in self._refused and self._is_full())
        )

    async def has_room(self, stream: int) -> None:
        """Wait until a write has made room, or the call is over."""
        waiting = self._waiting.setdefault(stream, self._loop.create_future())
        self._flush_soon()
        await asyncio.shield(waiting)

    def pause(self, stream: int) -> None:
        """Slow the client of this call down."""
        self._wire.pause(stream)

    def resume(self, stream: int) -> None:
        """Take what was kept meanwhile, and more."""
        self._hear(self._wire.resume(stream))
        self._flush_soon()

    # As the loop sees it.

    def _read(self) -> None:
        try:
            self._hear(self._wire.receive())
        except InvalidRequest as error:  # no later header block can be read
            logger.debug("%s: %s", self._peer, error)
            self._wire.goaway(COMPRESSION_ERROR)
            self._wire.flush()
            self.close()
        except Exception as error:  # noqa: BLE001 -- the boundary of one connection: others are served by the same loop
            failure_of(error, f"serving {self._peer}")
            self.close()
        else:
            if self._wire.is_over:
                logger.debug("%s left: %s", self._peer, self._wire.why())
                self.close()
            else:  # also where the client has done no more than give room to what waits
                self._flush_soon()

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
        if self._waiting:
            self._wake()

    def _write_out(self) -> None:
        if not self._wire.flush():
            self._read()
            return
        self._watch.watch_writing(self._wire.wants_write)
        if not self.is_busy:
            self._owner.settled()

    def _wake(self) -> None:
        for stream in [each for each in self._waiting if not self.has_to_wait(each)]:
            self._refused.discard(stream)
            self._waiting.pop(stream).set_result(None)

    def _is_full(self) -> bool:
        return self._wire.all_unsent_bytes() > self.limits.max_unsent_bytes // 2

    def _forget(self, stream: int) -> None:
        self._calls.pop(stream, None)
        self._refused.discard(stream)
        if (waiting := self._waiting.pop(stream, None)) is not None:
            waiting.set_result(None)

    def _close_if_silent(self) -> None:
        if not self._wire.has_begun:
            self.close()

    def _hear(self, events: Iterable[Event]) -> None:
        for stream, kind, data, _ in events:
            if kind == Kind.HEADERS or kind == Kind.TRAILERS:
                if stream > self._last_begun:
                    self._last_begun = stream
                    self._begin(stream, data)
                else:
                    self._decoder.decode_fields(data)  # nobody asks for a client's trailers
                continue
            call = self._calls.get(stream)
            if call is None:
                continue
            if kind == Kind.MESSAGE or kind == Kind.COMPRESSED:
                call.take(data, is_compressed=kind == Kind.COMPRESSED)
            elif kind == Kind.REMOTE_ENDED:
                call.take_end()
            else:
                self._forget(stream)
                call.leave()

    def _begin(self, stream: int, block: bytes) -> None:
        fields = self._decoder.decode_fields(block)
        headers = dict(fields)
        if not call_headers.is_grpc(headers):
            self.send_trailers(stream, call_headers.NO_GRPC)
            return
        if (method := self._methods.find(headers.get(":path", ""))) is None:
            self._refuse(stream, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            return
        encoding = headers.get("grpc-encoding", "identity")
        if encoding not in ACCEPTED:
            details = f"grpc-encoding is {encoding}, which is not known here"
            accepted = [("grpc-accept-encoding", ",".join(ACCEPTED))]
            self._refuse(stream, grpc.StatusCode.UNIMPLEMENTED, details, accepted)
            return
        try:
            metadata = metadata_of(fields)
        except InvalidRequest as error:
            self._refuse(stream, error.status, str(error))
            return
        self._calls[stream] = Call(
            stream,
            self,
            method,
            metadata=metadata,
            peer=self._peer,
            verified=self._verified(),
            encoding=encoding,
            seconds=call_headers.timeout_seconds(headers),
        )

    def _verified(self) -> Verified:
        if self._peer_names is None:
            self._peer_names = verified(self._wire.peer)
        return self._peer_names

    def _refuse(
        self,
        stream: int,
        code: grpc.StatusCode,
        details: str,
        more: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.send_trailers(stream, call_headers.refuse(code, details, more))
