"""The header blocks of HTTP/2 streams, of which a stream of frames has two in its life.

Other parties' blocks are read in full. Ours are written without what depends on the blocks before
them, so that none has to be sent in any order.
"""

from collections.abc import Iterable

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple

from services.wire.errors import InvalidRequest

# Names and values together, each pair with 32 bytes more, as HTTP/2 counts them.
MAX_LIST_BYTES = 16 << 10


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block; names in lower case, pseudo-headers first."""
    fields = [NeverIndexedHeaderTuple(name, value) for name, value in headers]
    return Encoder().encode(fields, huffman=False)


class HeaderDecoder:
    """Reads the blocks that come on one connection, each exactly once and in their order."""

    def __init__(self) -> None:
        self._decoder = Decoder(MAX_LIST_BYTES)

    def decode(self, block: bytes) -> dict[str, str]:
        """The headers by their names; of several with one name, the last. Raises as
        `decode_fields` does.
        """
        return dict(self.decode_fields(block))

    def decode_fields(self, block: bytes) -> list[tuple[str, str]]:
        """The headers, names and values, as they came.

        Raises InvalidRequest for a block that is none, or that is larger than is allowed; no other
        block of its connection can be read then.
        """
        try:
            return [(str(name), str(value)) for name, value in self._decoder.decode(block)]
        except HPACKError as error:
            raise InvalidRequest(f"a header block cannot be read: {error}") from error
