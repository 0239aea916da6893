"""The transport of a stream over a connection of its own: gRPC all the same, in compiled code, read
and written by the event loop's own thread.
"""

import asyncio
import socket

from services.router.peers.transport import DISPATCH
from services.runtime.call_blocks import CallAnswer, request_block
from services.runtime.doorbell import Doorbell
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.service_calls import Receive
from services.runtime.socket_watch import SocketWatch
from services.runtime.tls_contexts import ClientTls
from services.wire.errors import ServingError, Unavailable
from services.wire.native_streams import ENABLED

try:
    from services.router import _streams as _streams
except ImportError:  # no compiler was there at install time, or the system is another
    _streams = None  # type: ignore[assignment]

AVAILABLE = ENABLED and _streams is not None
# So much may come before anybody reads: a stream's first credit.
MAX_EARLY = 16


class NativeTransport:
    """Takes over a connected, non-blocking socket, and begins the call of expert.proto there.

    `authority` is the address that was connected to; `name` names the service in errors. With `tls`
    all goes through it.
    """

    kind = "native"

    def __init__(
        self, connected: socket.socket, authority: str, name: str, tls: ClientTls | None = None
    ) -> None:
        self._stream = _streams.Stream(
            connected.detach(),
            request_block(DISPATCH, authority, is_secured=tls is not None),
            MAX_MESSAGE_BYTES,
            None if tls is None else tls.context,
            None if tls is None else tls.host,
        )
        self._name = name
        self._answer = CallAnswer(name)
        self._early: list[tuple[bytes, int | None]] = []
        self._receive: Receive = self._keep_early
        self._progressed = Doorbell()
        self._error: Exception | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = SocketWatch(self._stream.fileno(), self._read, self._write)
        self._watch.watch_writing(self._stream.wants_write)

    @property
    def native(self) -> "_streams.Stream":
        """The connection, which an exchange may use while it reads nothing here."""
        return self._stream

    def attend(self) -> None:
        """Take what an exchange left: messages, the end, or what could not be written."""
        self._read()

    async def begun(self, timeout_seconds: float) -> None:
        """Return once the service has taken the call. Raises ServingError when it does not in
        time.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._error is None and not self._answer.has_begun:
                    await self._progressed.wait_for_ring()
        except TimeoutError:
            raise Unavailable(f"{self._name} did not answer in time") from None
        if self._error is not None:
            raise self._error

    def try_send(self, message: bytes) -> bool:
        """Write it, unless some of a message before it still waits."""
        if not self._stream.send(message):
            return False
        self._watch.watch_writing(self._stream.wants_write)
        return True

    async def send(self, message: bytes) -> None:
        """Write it as soon as all before it is written."""
        while not self.try_send(message):
            if self._stream.is_over:
                self._read()  # which tells whoever waits in `deliver`
                raise Unavailable(f"{self._name} ended the call") from self._error
            await self._progressed.wait_for_ring()

    async def deliver(self, receive: Receive) -> None:
        """Hand on what came and what comes, from the loop itself, until the call ends."""
        for message, arrived in self._early:
            receive(message, arrived)
        self._early.clear()
        self._receive = receive
        if self._error is None:
            await self._ended
        assert self._error is not None
        raise self._error

    def close(self) -> None:
        """Close the connection."""
        self._end(Unavailable(f"the stream to {self._name} was closed"))

    def _keep_early(self, message: bytes, arrived: int | None) -> None:
        if len(self._early) == MAX_EARLY:
            raise ServingError(f"{self._name} sends without being asked")
        self._early.append((message, arrived))

    def _read(self) -> None:
        """The loop calls it: the socket has something, or is gone."""
        stream = self._stream
        messages = stream.receive()
        try:
            if stream.has_news:
                for block, _ in stream.take_headers():
                    self._answer.take(block)
            for message, arrived in messages:
                self._receive(message, arrived)
        except Exception as error:  # noqa: BLE001 -- `deliver` raises it
            self._end(error)
            return
        if stream.is_over:
            self._end(self._answer.end or self._answer.broken(stream.reset_code, stream.why()))
            return
        self._watch.watch_writing(stream.wants_write)
        self._progressed.ring()

    def _write(self) -> None:
        """The loop calls it: the socket takes more."""
        self._stream.flush()
        self._read()  # which also sees that it is over

    def _end(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        self._watch.close()
        self._stream.close()
        self._progressed.ring()
        if not self._ended.done():
            self._ended.set_result(None)
