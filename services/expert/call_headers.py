"""What the headers of a native stream ask for, and how gRPC is answered in headers and trailers."""

import re
from collections.abc import Mapping
from urllib.parse import quote

import grpc

from services.wire.errors import ServingError
from services.wire.header_blocks import encode_headers

PATH = "/moesaic.v1.ExpertService/Dispatch"
CONTENT_TYPE = "application/grpc"

_RESPONSE = ((":status", "200"), ("content-type", CONTENT_TYPE))
RESPONSE_HEADERS = encode_headers(_RESPONSE)

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# All that a message may have as it is: ASCII that can be printed, but for the escape.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def refusal(headers: Mapping[str, str]) -> bytes | None:
    """The headers that refuse a call, where it is not one that is served here."""
    content_type = headers.get("content-type", "")
    if headers.get(":method") != "POST" or not re.match(rf"{CONTENT_TYPE}([+;]|$)", content_type):
        return encode_headers(((":status", "415"),))
    if headers.get(":path") != PATH:
        return refuse(grpc.StatusCode.UNIMPLEMENTED, f"this port serves {PATH} alone")
    encoding = headers.get("grpc-encoding", "identity")
    if encoding != "identity":
        return refuse(
            grpc.StatusCode.UNIMPLEMENTED,
            f"grpc-encoding is {encoding}; this port takes identity alone",
            ("grpc-accept-encoding", "identity"),
        )
    return None


def timeout_seconds(headers: Mapping[str, str]) -> float | None:
    """How long the caller waits; None for ever, or where what it says is no time."""
    match = _TIMEOUT.fullmatch(headers.get("grpc-timeout", ""))
    return None if match is None else int(match[1]) * _UNIT_SECONDS[match[2]]


def refuse(status: grpc.StatusCode, message: str, *more: tuple[str, str]) -> bytes:
    """Headers that are trailers as well: nothing comes before them."""
    return encode_headers((*_RESPONSE, *_ending(status, message), *more))


def trailers(error: ServingError) -> bytes:
    """Trailers that end a call with an error."""
    return encode_headers(_ending(error.status, str(error)))


def _ending(status: grpc.StatusCode, message: str) -> tuple[tuple[str, str], ...]:
    code: int = status.value[0]
    return (("grpc-status", str(code)), ("grpc-message", quote(message, safe=_PLAIN)))
