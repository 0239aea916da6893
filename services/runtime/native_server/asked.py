"""What the headers of a new stream ask for: a call of a method, or something that is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import grpc

from services.runtime import call_headers
from services.runtime.boundary import retry_after
from services.runtime.native_server.compression import ACCEPTED
from services.runtime.native_server.metadata import Metadata, metadata_of
from services.runtime.native_server.methods import Method, Methods
from services.wire.errors import ServingError
from services.wire.header_blocks import HeaderDecoder, UnreadableBlock
from services.wire.tls import Verified


class Asked(NamedTuple):
    """A call: `encoding` is of its requests, `seconds` how long its client waits, None for ever,
    and `leave` is to be called once it is over.
    """

    method: Method
    metadata: Metadata
    encoding: str
    seconds: float | None
    leave: Callable[[], None]


@dataclass(frozen=True)
class ShownCall:
    """What is known of a call before it begins."""

    metadata: Metadata
    address: str
    verified: Verified

    def invocation_metadata(self) -> Metadata:
        return self.metadata

    def auth_context(self) -> Verified:
        return self.verified

    def peer(self) -> str:
        return self.address


def asked_by(
    block: bytes,
    decoder: HeaderDecoder,
    methods: Methods,
    admit: Callable[[str, Metadata], Callable[[], None]],
) -> Asked | bytes:
    """The call, or the header block that refuses it; `admit` lets a call of a path begin, as a
    Doorkeeper does. Raises UnreadableBlock.
    """
    try:
        fields = decoder.decode_fields(block)
    except UnreadableBlock:
        raise
    except ServingError as error:
        return call_headers.refuse(error.status, str(error))
    headers = dict(fields)
    if not call_headers.is_grpc(headers):
        return call_headers.NO_GRPC
    path = headers.get(":path", "")
    if (method := methods.find(path)) is None:
        return call_headers.refuse(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    encoding = headers.get("grpc-encoding", "identity")
    if encoding not in ACCEPTED:
        details = f"grpc-encoding is {encoding}, which is not known here"
        accepted = [("grpc-accept-encoding", ",".join(ACCEPTED))]
        return call_headers.refuse(grpc.StatusCode.UNIMPLEMENTED, details, accepted)
    try:
        metadata = metadata_of(fields)
        leave = admit(path, metadata)
    except ServingError as error:
        return call_headers.refuse(error.status, str(error), retry_after(error))
    return Asked(method, metadata, encoding, call_headers.timeout_seconds(headers), leave)


def skip(block: bytes, decoder: HeaderDecoder) -> None:
    """Read a block that nobody asks for, since later ones build on it. Raises UnreadableBlock."""
    try:
        decoder.decode_fields(block)
    except UnreadableBlock:
        raise
    except ServingError:
        return
