"""The header blocks of HTTP/2 streams, of which a stream of frames has two in its life.

Other parties' blocks are read in full, by compiled code. Ours are written without what depends on
the blocks before them, so that none has to be sent in any order.
"""

from collections.abc import Iterable

from services.wire.connections import _connections
from services.wire.errors import InvalidRequest, Overloaded

# Names and values together, each pair with 32 bytes more, as HTTP/2 counts them.
MAX_LIST_BYTES = 16 << 10

# A field that no table takes in, with its name in full: RFC 7541, section 6.2.3.
_NEVER_INDEXED = b"\x10"
_MAX_SHORT = 127


class UnreadableBlock(InvalidRequest):
    """A block is none. No later one of its connection can be read."""


class TooMuchMetadata(Overloaded):
    """A block has more than is taken. Later ones can be read."""


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block; names in lower case, pseudo-headers first."""
    return b"".join(
        _NEVER_INDEXED + _text(name.encode()) + _text(value.encode()) for name, value in headers
    )


class HeaderDecoder:
    """Reads the blocks that come on one connection, each exactly once and in their order. It takes
    the compiled connections.
    """

    def __init__(self) -> None:
        self._decoder = _connections.Decoder(MAX_LIST_BYTES)
        self._has_failed = False

    def decode(self, block: bytes) -> dict[str, str]:
        """The headers by their names; of several with one name, the last. Raises as
        `decode_fields` does.
        """
        return dict(self.decode_fields(block))

    def decode_fields(self, block: bytes) -> list[tuple[str, str]]:
        """The headers, names and values, as they came.

        Raises UnreadableBlock, TooMuchMetadata, or InvalidRequest for a text that is no UTF-8.
        """
        if self._has_failed:
            raise UnreadableBlock("a header block before this one could not be read")
        try:
            fields, is_too_much, is_text = self._decoder.decode(block)
        except ValueError as error:
            self._has_failed = True
            raise UnreadableBlock(f"a header block cannot be read: {error}") from error
        if is_too_much:
            raise TooMuchMetadata(f"a header block has more than {MAX_LIST_BYTES} bytes")
        if not is_text:
            raise InvalidRequest("a header is no UTF-8")
        return fields


def _text(text: bytes) -> bytes:
    """A text with its length, which is a number whose first byte has seven bits for it."""
    length = len(text)
    if length < _MAX_SHORT:
        return bytes((length,)) + text
    rest, numbers = length - _MAX_SHORT, [_MAX_SHORT]
    while rest >= 128:
        numbers.append(rest % 128 + 128)
        rest //= 128
    return bytes((*numbers, rest)) + text
