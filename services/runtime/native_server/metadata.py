"""A call's metadata: what of the headers is the caller's, and binary values as text."""

import base64
import binascii
from collections.abc import Iterable

from services.wire.errors import InvalidRequest

Metadata = tuple[tuple[str, str | bytes], ...]

_BINARY = "-bin"
# What gRPC reads itself.
_OF_GRPC = frozenset(
    ("te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding")
)


def metadata_of(fields: Iterable[tuple[str, str]]) -> Metadata:
    """What a handler sees of a call's headers. Raises InvalidRequest for a binary value that is
    none.
    """
    return tuple(
        (name, _bytes_of(name, value) if name.endswith(_BINARY) else value)
        for name, value in fields
        if not name.startswith(":") and name not in _OF_GRPC
    )


def fields_of(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[str, str]]:
    """The headers, or trailers, that carry metadata of ours."""
    return [
        (name, value if isinstance(value, str) else base64.b64encode(value).decode().rstrip("="))
        for name, value in metadata
    ]


def _bytes_of(name: str, value: str) -> bytes:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"the value of {name} is not base64") from error
