"""What the headers of a new stream ask for: a call of a method, or something that is refused."""

from typing import NamedTuple

import grpc

from services.runtime import call_headers
from services.runtime.native_server.compression import ACCEPTED
from services.runtime.native_server.metadata import Metadata, metadata_of
from services.runtime.native_server.methods import Method, Methods
from services.wire.errors import InvalidRequest, ServingError
from services.wire.header_blocks import HeaderDecoder, UnreadableBlock


class Asked(NamedTuple):
    """A call: `encoding` is of its requests, `seconds` how long its client waits, None for ever."""

    method: Method
    metadata: Metadata
    encoding: str
    seconds: float | None


def asked_by(block: bytes, decoder: HeaderDecoder, methods: Methods) -> Asked | bytes:
    """The call, or the header block that refuses it. Raises UnreadableBlock."""
    try:
        fields = decoder.decode_fields(block)
    except UnreadableBlock:
        raise
    except ServingError as error:
        return call_headers.refuse(error.status, str(error))
    headers = dict(fields)
    if not call_headers.is_grpc(headers):
        return call_headers.NO_GRPC
    if (method := methods.find(headers.get(":path", ""))) is None:
        return call_headers.refuse(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    encoding = headers.get("grpc-encoding", "identity")
    if encoding not in ACCEPTED:
        details = f"grpc-encoding is {encoding}, which is not known here"
        accepted = [("grpc-accept-encoding", ",".join(ACCEPTED))]
        return call_headers.refuse(grpc.StatusCode.UNIMPLEMENTED, details, accepted)
    try:
        metadata = metadata_of(fields)
    except InvalidRequest as error:
        return call_headers.refuse(error.status, str(error))
    return Asked(method, metadata, encoding, call_headers.timeout_seconds(headers))
