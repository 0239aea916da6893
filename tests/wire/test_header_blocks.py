"""Header blocks are written without state, and read whoever wrote them."""

import pytest
from hpack import Encoder

from services.wire.errors import InvalidRequest
from services.wire.header_blocks import MAX_LIST_BYTES, HeaderDecoder, encode_headers

HEADERS = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-message", "50%25")]


def test_a_block_is_read_by_itself_and_in_any_order() -> None:
    one, two = encode_headers(HEADERS), encode_headers([*HEADERS, ("more", "")])
    assert encode_headers(HEADERS) == one
    decoder = HeaderDecoder()
    assert decoder.decode(two) == {**dict(HEADERS), "more": ""}
    assert decoder.decode(one) == dict(HEADERS)


def test_blocks_of_others_that_build_on_one_another_are_read() -> None:
    encoder, decoder = Encoder(), HeaderDecoder()
    for _ in range(3):
        assert decoder.decode(encoder.encode(HEADERS)) == dict(HEADERS)


@pytest.mark.parametrize(
    "block",
    [
        b"\xff",
        b"\x80",
        b"\x40\x01",
        b"\x3f\xff\xff\xff\xff\x7f",
        b"\x00\x01a\x82\xff\xff",
        b"\x00\x01a\x01\xff",
        Encoder().encode([("a", "b" * 3000)] * (MAX_LIST_BYTES // 3000 + 1)),
    ],
)
def test_a_block_that_is_none_or_grows_too_large_is_refused(block: bytes) -> None:
    with pytest.raises(InvalidRequest, match="a header block cannot be read"):
        HeaderDecoder().decode(block)
