"""What a handler may ask of its call and tell it, as grpc.aio's contexts have it."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import grpc

from services.runtime.native_server.asked import ShownCall
from services.runtime.native_server.metadata import Metadata
from services.wire.tls import Verified


class CallContext(grpc.aio.ServicerContext):
    """The part that is known without the connection. What none of our handlers needs is refused."""

    def __init__(self, shown: ShownCall, seconds: float | None) -> None:
        self._shown = shown
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._trailing: Metadata = ()
        self._done_callbacks: list[Callable[[Any], None]] = []

    def invocation_metadata(self) -> Metadata:
        return self._shown.metadata

    def peer(self) -> str:
        return self._shown.address

    @property
    def notes(self) -> dict[str, Any]:
        """As `ShownCall` has them."""
        return self._shown.notes

    def time_remaining(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic())

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Metadata:
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._done_callbacks.append(callback)

    @abstractmethod
    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn: ...

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    async def read(self) -> NoReturn:
        raise NotImplementedError("requests are read from the iterator that the handler is given")

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is compressed: what is sent is small, or random to a compressor."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed."""

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> Verified:
        return self._shown.verified
