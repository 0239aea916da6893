"""Header blocks are written without state, and read whoever wrote them."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple

from services.wire import connections
from services.wire.errors import InvalidRequest
from services.wire.header_blocks import (
    MAX_LIST_BYTES,
    HeaderDecoder,
    TooMuchMetadata,
    UnreadableBlock,
    encode_headers,
)

if not connections.AVAILABLE:
    pytest.skip("the connections were not compiled", allow_module_level=True)

HEADERS = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-message", "50%25")]
NAMES = (":path", ":authority", "te", "user-agent", "grpc-timeout", "x", "a-longer-name", "")
ALL_CHARACTERS = "".join(map(chr, range(128))) + "é€😀"


def pairs(fields: Iterable[Any]) -> list[tuple[str, str]]:
    """Of plain tuples."""
    return [(str(name), str(value)) for name, value in fields]


def test_a_block_is_read_by_itself_and_in_any_order() -> None:
    one, two = encode_headers(HEADERS), encode_headers([*HEADERS, ("more", "")])
    assert encode_headers(HEADERS) == one
    decoder = HeaderDecoder()
    assert decoder.decode(two) == {**dict(HEADERS), "more": ""}
    assert decoder.decode(one) == dict(HEADERS)


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 256, 5000])
def test_others_read_what_we_write(length: int) -> None:
    fields = [("name", "v" * length), ("n" * length, "é"), (":path", "/")]
    assert pairs(Decoder().decode(encode_headers(fields))) == fields
    assert HeaderDecoder().decode_fields(encode_headers(fields)) == fields


def test_blocks_of_others_that_build_on_one_another_are_read() -> None:
    encoder, decoder = Encoder(), HeaderDecoder()
    for _ in range(3):
        assert decoder.decode(encoder.encode(HEADERS)) == dict(HEADERS)


def drawn_fields(draw: random.Random) -> Iterator[Any]:
    """Fields of which some come again, and some have every kind of character."""
    for _ in range(draw.randrange(12)):
        characters = draw.choice(("abc", "0123456789", ALL_CHARACTERS))
        length = draw.choice((0, 1, 5, 40, 130, 1500))
        value = "".join(draw.choices(characters, k=length))
        pair = (draw.choice(NAMES), draw.choice((value, "again", "200")))
        yield NeverIndexedHeaderTuple(*pair) if draw.random() < 0.1 else pair


@pytest.mark.parametrize("seed", range(20))
def test_connections_of_blocks_are_read_as_another_reader_does(seed: int) -> None:
    draw = random.Random(seed)
    encoder, ours, theirs = Encoder(), HeaderDecoder(), Decoder(1 << 20)
    for _ in range(40):
        if draw.random() < 0.1:
            encoder.header_table_size = draw.choice((0, 100, 500, 4096))
        fields = list(drawn_fields(draw))
        block = encoder.encode(fields, huffman=draw.random() < 0.7)
        read = pairs(theirs.decode(block))
        assert read == pairs(fields)
        assert ours.decode_fields(block) == read


def read_by_another(block: bytes) -> list[tuple[str, str]] | None:
    try:
        return pairs(Decoder(1 << 20).decode(block))
    except (HPACKError, UnicodeDecodeError):
        return None


def read_by_ours(block: bytes) -> list[tuple[str, str]] | None:
    try:
        return HeaderDecoder().decode_fields(block)
    except InvalidRequest:
        return None


@pytest.mark.parametrize("seed", range(20))
def test_altered_blocks_are_read_or_refused_as_by_another_reader(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        encoder = Encoder()
        block = bytearray(encoder.encode(drawn_fields(draw), huffman=draw.random() < 0.7))
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(block) + 1)
            block[at : at + draw.randrange(2)] = draw.randbytes(draw.randrange(2))
        assert read_by_ours(bytes(block)) == read_by_another(bytes(block)), block.hex()


@pytest.mark.parametrize(
    "block",
    [
        b"\xff",
        b"\x80",
        b"\xbe",
        b"\x40\x01",
        b"\x3f\xff\xff\xff\xff\x7f",
        b"\x3f\xe2\x1f",
        b"\x82\x20",
        b"\x00\x01a\x82\xff\xff",
        b"\x00\x01a\x84\xff\xff\xff\xff",
        b"\x00\x01a\x81\x00",
    ],
)
def test_a_block_that_is_none_is_refused(block: bytes) -> None:
    with pytest.raises(UnreadableBlock, match="a header block cannot be read"):
        HeaderDecoder().decode(block)


def test_no_block_is_read_behind_one_that_could_not_be() -> None:
    decoder = HeaderDecoder()
    for block in (b"\xff", encode_headers(HEADERS)):
        with pytest.raises(UnreadableBlock):
            decoder.decode(block)


def test_blocks_behind_one_that_is_not_taken_are_read() -> None:
    encoder, decoder = Encoder(), HeaderDecoder()
    many = [("a", "b" * 3000)] * (MAX_LIST_BYTES // 3000 + 1)
    with pytest.raises(TooMuchMetadata):
        decoder.decode(encoder.encode([*many, ("late", "word")]))
    with pytest.raises(InvalidRequest, match="UTF-8"):
        decoder.decode(encoder.encode([(b"name", b"\xe9"), *HEADERS]))
    later = encoder.encode([("late", "word"), *HEADERS])
    assert len(later) == 1 + len(HEADERS)
    assert decoder.decode(later) == {"late": "word", **dict(HEADERS)}
