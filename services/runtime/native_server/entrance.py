"""What a call's headers ask for: a method that is served, and a call that may begin."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import grpc

from services.runtime import call_headers
from services.runtime.boundary import retry_after
from services.runtime.doorkeeping import AskedCall, Doorkeeper
from services.runtime.native_server.compression import ACCEPTED
from services.runtime.native_server.metadata import Metadata, metadata_of
from services.runtime.native_server.methods import Method, Methods
from services.wire.errors import ServingError


class Refused(Exception):
    """There is to be no call; `block` is the headers to say so with, after which nothing comes."""

    def __init__(self, block: bytes) -> None:
        super().__init__()
        self.block = block


@dataclass(frozen=True)
class AdmittedCall:
    """A call that may begin; `leave` is to be called once it is over."""

    method: Method
    metadata: Metadata
    encoding: str
    seconds: float | None
    leave: Callable[[], None]


class Entrance:
    """Of one connection."""

    def __init__(self, methods: Methods, peer: str, doorkeeper: Doorkeeper | None) -> None:
        self._methods = methods
        self._peer = peer
        self._doorkeeper = doorkeeper

    def admit(self, fields: Iterable[tuple[str, str]]) -> AdmittedCall:
        """Read the headers of a new stream; raises Refused."""
        headers = dict(fields)
        if not call_headers.is_grpc(headers):
            raise Refused(call_headers.NO_GRPC)
        path = headers.get(":path", "")
        if (method := self._methods.find(path)) is None:
            raise _refused(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        encoding = headers.get("grpc-encoding", "identity")
        if encoding not in ACCEPTED:
            details = f"grpc-encoding is {encoding}, which is not known here"
            accepted = [("grpc-accept-encoding", ",".join(ACCEPTED))]
            raise _refused(grpc.StatusCode.UNIMPLEMENTED, details, accepted)
        try:
            metadata = metadata_of(fields)
            leave = self._begin(AskedCall(path, metadata, self._peer))
        except ServingError as error:
            raise _refused(error.status, str(error), retry_after(error)) from None
        return AdmittedCall(
            method, metadata, encoding, call_headers.timeout_seconds(headers), leave
        )

    def _begin(self, asked: AskedCall) -> Callable[[], None]:
        return (lambda: None) if self._doorkeeper is None else self._doorkeeper.admit(asked)


def _refused(code: grpc.StatusCode, details: str, more: Iterable[tuple[str, str]] = ()) -> Refused:
    return Refused(call_headers.refuse(code, details, more))
