"""One call over a connection of ours."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from services.runtime.call_blocks import CallAnswer
from services.runtime.doorbell import Doorbell
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.service_calls import Receive
from services.wire.connections import Kind
from services.wire.errors import Overloaded, Unavailable

if TYPE_CHECKING:
    from services.wire.connections._connections import Connection


class Owner(Protocol):
    """The connection of a call, as the call sees it."""

    def flush_soon(self) -> None:
        """Write what is sent in this turn of the loop."""

    def resume(self, stream: int) -> None:
        """Hand out what came for the call while it was paused."""

    def forget(self, stream: int) -> None:
        """The call has ended."""


class NativeCall:
    """The call on a stream that was just opened. Its messages stay in the connection until somebody
    takes them.
    """

    def __init__(self, owner: Owner, wire: "Connection", stream: int, name: str) -> None:
        self._owner = owner
        self._wire = wire
        self._stream = stream
        self._name = name
        self._answer = CallAnswer(name)
        self._receive: Receive | None = None
        self._progressed = Doorbell()
        self._error: Exception | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wire.pause(stream)

    @property
    def has_ended_well(self) -> bool:
        """Whether the service ended it, without an error."""
        return self._answer.has_ended_well

    def try_send(self, message: bytes) -> bool:
        """Put it into what is written at the end of this turn of the loop."""
        if not self._wire.send(self._stream, message):
            return False
        self._owner.flush_soon()
        return True

    async def send(self, message: bytes) -> None:
        """Send it, and return once nothing waits for the service to read."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise Overloaded(f"a message to {self._name} has more than {MAX_MESSAGE_BYTES} bytes")
        has_sent = False
        while self._error is None:
            has_sent = has_sent or self.try_send(message)
            if has_sent and not self._wire.unsent_bytes(self._stream):
                return
            self._owner.flush_soon()  # which also notices what has broken
            await self._progressed.wait_for_ring()
        raise Unavailable(f"{self._name} ended the call") from self._error

    def finish(self) -> None:
        """Say that no message follows."""
        self._wire.finish(self._stream)
        self._owner.flush_soon()

    async def deliver(self, receive: Receive) -> None:
        """Hand on what came and what comes, from the loop itself, until the call ends."""
        self._receive = receive
        if self._error is None:
            self._owner.resume(self._stream)
        if self._error is None:
            await self._ended
        assert self._error is not None
        raise self._error

    def close(self) -> None:
        """Give it up."""
        self.end(Unavailable(f"the stream to {self._name} was closed"))

    def take_headers(self, headers: dict[str, str]) -> None:
        """The connection has read a header block of it."""
        try:
            self._answer.note(headers)
        except Exception as error:  # noqa: BLE001 -- `deliver` raises it
            self.end(error)

    def take(self, kind: int, data: bytes, number: int) -> None:
        """The connection has read something else of it."""
        if kind == Kind.MESSAGE:
            try:
                assert self._receive is not None, "paused until then"
                self._receive(data, number)
            except Exception as error:  # noqa: BLE001 -- `deliver` raises it
                self.end(error)
        else:
            code = number if kind == Kind.RESET and not self._wire.is_over else None
            self.end(self._answer.end or self._answer.broken(code, self._wire.why()))

    def progress(self) -> None:
        """The connection has written, or read."""
        self._progressed.ring()

    def end(self, error: Exception) -> None:
        """It is over; the first error counts."""
        if self._error is not None:
            return
        self._error = error
        self._owner.forget(self._stream)
        self._progressed.ring()
        if not self._ended.done():
            self._ended.set_result(None)
