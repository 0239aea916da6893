"""Messages that a client has compressed."""

import zlib

from services.wire.errors import Overloaded, ServingError

# How zlib calls the containers of gRPC's encodings.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
ACCEPTED = ("identity", *_WINDOW_BITS)


def decompressed(message: bytes, encoding: str, max_bytes: int) -> bytes:
    """The message as it was. Raises Overloaded where that would be above `max_bytes`, and
    ServingError where it is not compressed so.
    """
    if encoding not in _WINDOW_BITS:
        raise ServingError("a message is compressed, and grpc-encoding does not say how")
    decompressor = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = decompressor.decompress(message, max_bytes + 1)
    except zlib.error as error:
        raise ServingError(f"a message is not compressed with {encoding}") from error
    if len(plain) > max_bytes:
        raise Overloaded(f"a message has more than {max_bytes} bytes when it is decompressed")
    if not decompressor.eof:
        raise ServingError(f"a message that is compressed with {encoding} was cut")
    return plain
