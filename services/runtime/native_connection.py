"""Calls to a service over a connection of ours: gRPC all the same, in compiled code, read and
written by the event loop's own thread.
"""

import asyncio
import socket

from services.runtime.call_blocks import CANCEL, request_block
from services.runtime.native_call import NativeCall
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.service_calls import ServiceCall
from services.runtime.silence import Silence
from services.runtime.socket_watch import SocketWatch
from services.runtime.tls_contexts import ClientTls
from services.wire.connections import Kind, _connections
from services.wire.errors import ServingError, Unavailable
from services.wire.header_blocks import HeaderDecoder, UnreadableBlock

# A service that says nothing for so long is asked by a PING whether it is there, and is given up
# when it says nothing for as long again: within fifteen seconds, as on gRPC's channels. TCP would
# not do, since the system of a hung process goes on to confirm bytes.
SILENCE_SECONDS = 5.0
# Of messages that the service does not take: one of any size, and what is said meanwhile.
MAX_UNSENT_BYTES = 2 * MAX_MESSAGE_BYTES
# Of messages that no call has taken; the service is one of ours.
MAX_HELD_BYTES = 16 * MAX_MESSAGE_BYTES
# Of a call that is gone on with: all that the service's windows let through.
ALL = (1 << 32) - 1


class NativeConnection:
    """Takes over a connected, non-blocking socket. `authority` is the address that was connected
    to; `name` names the service in errors. With `tls` all goes through it.
    """

    kind = "native"

    def __init__(
        self,
        connected: socket.socket,
        authority: str,
        name: str,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        tls: ClientTls | None = None,
    ) -> None:
        self._wire = _connections.Connection(
            connected.detach(),
            False,
            MAX_MESSAGE_BYTES,
            1,
            MAX_UNSENT_BYTES,
            MAX_HELD_BYTES,
            None if tls is None else tls.context,
            None if tls is None else tls.host,
        )
        self._is_secured = tls is not None
        self._authority = authority
        self._name = name
        self._decoder = HeaderDecoder()
        self._calls: dict[int, NativeCall] = {}
        self._error: Exception | None = None
        self._is_to_flush = False
        self._loop = asyncio.get_running_loop()
        self._watch = SocketWatch(self._wire.fileno(), self._read, self._flush)
        self._silence = Silence(silence_seconds, self._ask_for_life, self._give_up)
        self.flush_soon()

    async def ask(self, path: str, request: bytes, *, timeout_seconds: float) -> bytes:
        """Make a call with one message each way."""
        answers: list[bytes] = []
        call = self._begin(path)
        try:
            async with asyncio.timeout(timeout_seconds):
                await call.send(request)
                call.finish()
                await call.deliver(lambda message, _: answers.append(message))
        except TimeoutError:
            raise Unavailable(f"{self._name} did not answer in time") from None
        except ServingError:
            if not (call.has_ended_well and len(answers) == 1):
                raise
        finally:
            call.close()
        return answers[0]

    def call(self, path: str) -> ServiceCall:
        """Begin a call."""
        return self._begin(path)

    def close(self) -> None:
        """Close it, and end its calls."""
        self._end(Unavailable(f"the connection to {self._name} was closed"))

    def flush_soon(self) -> None:
        """Write what is sent in this turn of the loop, all of it at once."""
        if not self._is_to_flush:
            self._is_to_flush = True
            self._loop.call_soon(self._flush)

    def resume(self, stream: int) -> None:
        """Hand out what came for a call while it was paused."""
        self._take_all(self._wire.resume(stream, ALL))
        self.flush_soon()

    def forget(self, stream: int) -> None:
        """A call has ended: tell the service, where it does not know."""
        self._calls.pop(stream, None)
        if self._wire.reset(stream, CANCEL):
            self.flush_soon()

    def _begin(self, path: str) -> NativeCall:
        stream = self._wire.open(request_block(path, self._authority, is_secured=self._is_secured))
        if not stream:
            raise Unavailable(f"{self._name} takes no call") from self._error
        self.flush_soon()
        call = self._calls[stream] = NativeCall(self, self._wire, stream, self._name)
        return call

    def _read(self) -> None:
        """The loop calls it: the socket has something, or is gone."""
        self._silence.hear()
        self._receive()
        self._flush()

    def _flush(self) -> None:
        """The loop calls it: something was sent, or the socket takes more."""
        self._is_to_flush = False
        if self._error is not None:
            return
        if not self._wire.flush():
            self._receive()
            return
        self._watch.watch_writing(self._wire.wants_write)
        for call in self._calls.values():
            call.progress()

    def _receive(self) -> None:
        try:
            self._take_all(self._wire.receive())
        except MemoryError as error:
            self._end(error)
            return
        if self._wire.is_over:
            self._end(Unavailable(f"the stream to {self._name} broke: {self._wire.why()}"))

    def _take_all(self, events: list[tuple[int, int, bytes, int]]) -> None:
        for stream, kind, data, number in events:
            call = self._calls.get(stream)
            if kind in (Kind.HEADERS, Kind.TRAILERS):
                try:
                    headers = self._decoder.decode(data)  # whosever they are: it learns from all
                except UnreadableBlock as error:
                    self._end(error)
                    return
                except ServingError as error:
                    if call is not None:
                        call.end(error)
                    continue
                if call is not None:
                    call.take_headers(headers)
            elif call is not None:
                call.take(kind, data, number)

    def _ask_for_life(self) -> None:
        self._wire.ping()
        self._flush()

    def _give_up(self) -> None:
        self._end(Unavailable(f"the stream to {self._name} broke: nothing is heard of it"))

    def _end(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        self._silence.close()
        self._watch.close()
        self._wire.close()
        for call in list(self._calls.values()):
            call.end(error)
