"""What gRPC says in the headers and trailers of a call, as our own servers read and write it."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import grpc

from services.wire.header_blocks import encode_headers

CONTENT_TYPE = "application/grpc"
RESPONSE = ((":status", "200"), ("content-type", CONTENT_TYPE))
RESPONSE_HEADERS = encode_headers(RESPONSE)
# For what is no gRPC call at all.
NO_GRPC = encode_headers(((":status", "415"),))

Fields = Iterable[tuple[str, str]]

_IS_GRPC = re.compile(rf"{CONTENT_TYPE}([+;]|$)")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# All that a message may have as it is: ASCII that can be printed, but for the escape.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def is_grpc(headers: Mapping[str, str]) -> bool:
    """Whether they ask for a call of gRPC."""
    return headers.get(":method") == "POST" and bool(
        _IS_GRPC.match(headers.get("content-type", ""))
    )


def timeout_seconds(headers: Mapping[str, str]) -> float | None:
    """How long the caller waits; None for ever, or where what it says is no time."""
    match = _TIMEOUT.fullmatch(headers.get("grpc-timeout", ""))
    return None if match is None else int(match[1]) * _UNIT_SECONDS[match[2]]


def ending(status: grpc.StatusCode, message: str) -> tuple[tuple[str, str], ...]:
    """The fields of trailers that end a call so."""
    code: int = status.value[0]
    return (
        ("grpc-status", str(code)),
        ("grpc-message", quote(message, safe=_PLAIN, errors="replace")),
    )


def response_headers(more: Fields) -> bytes:
    """Headers before messages, with fields beside those of every response."""
    return encode_headers((*RESPONSE, *more))


def refuse(status: grpc.StatusCode, message: str, more: Fields = ()) -> bytes:
    """Headers that are trailers as well: nothing comes before them."""
    return encode_headers((*RESPONSE, *ending(status, message), *more))


def trailers(status: grpc.StatusCode, message: str, more: Fields = ()) -> bytes:
    """Trailers behind headers that were sent before."""
    return encode_headers((*ending(status, message), *more))
