"""Clients that speak no gRPC, little of it, or too much, and what becomes of the others."""

import asyncio
import zlib
from collections.abc import Sequence
from contextlib import suppress

import grpc
import pytest
from hpack import Encoder

from services.runtime.native_server import AVAILABLE, Limits
from services.runtime.server import MAX_MESSAGE_BYTES
from services.wire.header_blocks import HeaderDecoder, encode_headers
from tests.runtime.native_server.echo import ANSWER, COUNT, ECHO, LENGTH, MANY
from tests.runtime.native_server.stranger import (
    BEGUN,
    CALL,
    SECONDS,
    Served,
    request_of,
    still_serves,
    stranger,
)
from tests.wire.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    PING,
    PREFACE,
    RST_STREAM,
    data,
    frame,
    headers,
    prefixed,
    rst_stream,
    settings,
    window_update,
)

FIELDS = tuple(HeaderDecoder().decode_fields(request_of(ECHO)))

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the connections were not compiled")


@pytest.mark.parametrize("content", [None, "text/html", "application/grpcs"])
async def test_what_is_no_call_of_grpc_is_415(served: Served, content: str | None) -> None:
    block = request_of(content_type=content)
    client = await stranger(served.port, BEGUN, headers(1, block, END_HEADERS | END_STREAM))
    assert (await client.hear_headers()) == {":status": "415"}
    client.writer.close()


async def test_a_get_is_415(served: Served) -> None:
    block = request_of(method="GET")
    client = await stranger(served.port, BEGUN, headers(1, block, END_HEADERS | END_STREAM))
    assert (await client.hear_headers()) == {":status": "415"}
    client.writer.close()


async def test_an_unknown_encoding_is_refused_with_those_that_are_known(served: Served) -> None:
    client = await stranger(served.port, BEGUN, headers(1, request_of(grpc_encoding="snappy")))
    heard = await client.hear_headers()
    assert heard["grpc-status"] == "12"
    assert heard["grpc-accept-encoding"] == "identity,gzip,deflate"
    client.writer.close()


@pytest.mark.parametrize(
    ("encoding", "message", "status"),
    [
        ("gzip", zlib.compress(bytes(MAX_MESSAGE_BYTES + 1), wbits=31), "8"),
        ("gzip", zlib.compress(b"whole", wbits=31)[:-9], "13"),
        ("gzip", b"no gzip", "13"),
        ("deflate", b"no deflate", "13"),
        ("identity", b"what?", "13"),
    ],
    ids=["a bomb", "cut", "no gzip", "no deflate", "not agreed on"],
)
async def test_compressed_bytes_that_are_no_message_are_refused(
    served: Served, encoding: str, message: bytes, status: str
) -> None:
    client = await stranger(
        served.port,
        BEGUN,
        headers(1, request_of(grpc_encoding=encoding)),
        frame(DATA, 1, prefixed(message, compressed=1), END_STREAM),
    )
    assert (await client.hear_headers())["grpc-status"] == status
    client.writer.close()


@pytest.mark.parametrize("messages", [[], [b"one", b"two"]], ids=["none", "two"])
async def test_a_call_that_takes_one_request_gets_one(
    served: Served, messages: Sequence[bytes]
) -> None:
    client = await stranger(served.port, BEGUN, CALL, data(1, *messages, flags=END_STREAM))
    heard = await client.hear_headers()
    if messages:  # the first was begun with
        while "grpc-status" not in heard:
            heard = await client.hear_headers()
    assert heard["grpc-status"] == "12"
    client.writer.close()


async def test_metadata_that_is_no_base64_is_refused(served: Served) -> None:
    client = await stranger(served.port, BEGUN, headers(1, request_of(key_bin="&&&")))
    assert (await client.hear_headers())["grpc-status"] == "3"
    client.writer.close()


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (request_of(more="m" * 16_384), "8"),
        (request_of(more="m" * 60_000), "8"),
        (encode_headers([("k", "")] * 1000), "8"),
        (request_of() + b"\x10\x01k\x01\xe9", "3"),
        (request_of() + b"\x10\x01\xe9\x01v", "3"),
    ],
    ids=["long", "longer", "many", "no UTF-8", "no UTF-8 in a name"],
)
async def test_metadata_that_is_not_taken_ends_its_call_alone(
    served: Served, block: bytes, status: str
) -> None:
    client = await stranger(served.port, BEGUN, headers(1, request_of(ECHO)))
    client.writer.write(headers(3, block, END_HEADERS | END_STREAM))
    answer = await client.hear_headers()
    while "grpc-status" not in answer:
        answer = await client.hear_headers()
    assert answer["grpc-status"] == status
    client.writer.write(data(1, b"later"))
    assert (await client.hear(DATA))[1:] == (1, prefixed(b"later"))
    client.writer.close()


LATER = ("later", "word")
TRAILERS = END_HEADERS | END_STREAM


@pytest.mark.parametrize(
    "served",
    [
        Limits(
            MAX_MESSAGE_BYTES,
            max_streams=2,
            max_waiting_requests=2,
            max_unsent_call_bytes=0,
            last_words_seconds=0.01,
        )
    ],
    indirect=True,
)
@pytest.mark.parametrize(
    ("before", "stream", "flags", "fields"),
    [
        (b"", 5, END_HEADERS, (*FIELDS, LATER)),
        (b"", 3, TRAILERS, (LATER,)),
        (rst_stream(3), 3, TRAILERS, (LATER,)),
        (b"", 3, END_HEADERS, (LATER,)),
    ],
    ids=["no room", "trailers behind what waits", "trailers of a closed stream", "no trailers"],
)
async def test_header_blocks_build_on_those_that_nobody_hears(
    served: Served, before: bytes, stream: int, flags: int, fields: Sequence[tuple[str, str]]
) -> None:
    encoder, opening = Encoder(), PREFACE + settings(initial_window_size=0)
    waits = [headers(each, encoder.encode(FIELDS)) + data(each, *[b"waits"] * 9) for each in (1, 3)]
    client = await stranger(served.port, opening, *waits, frame(PING, 0, bytes(8)))
    await client.hear(PING)  # now both streams are paused
    unheard = headers(stream, encoder.encode(fields), flags)
    client.writer.write(before + unheard + rst_stream(1) + rst_stream(3))
    builds_on_it = headers(7, encoder.encode((*FIELDS, LATER)))
    client.writer.write(builds_on_it + data(7, b"heard") + window_update(7, 1000))
    assert (await client.hear(DATA))[1:] == (7, prefixed(b"heard"))
    client.writer.close()


async def test_a_header_block_that_cannot_be_read_ends_its_connection_alone(
    served: Served,
) -> None:
    client = await stranger(served.port, BEGUN, headers(1, b"\xff\xff\xff"))
    assert (await client.hear(GOAWAY))[2][4:8] == (9).to_bytes(4, "big")
    await client.hear_end()
    client.writer.close()
    await still_serves(served)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 3,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
        BEGUN + frame(PING, 0, bytes(8)) * 40_000,
        BEGUN + headers(1, request_of(), 0) + frame(9, 1, b"x" * 1000) * 80,
        BEGUN
        + b"".join(
            CALL[:5] + (2 * n + 1).to_bytes(4, "big") + CALL[9:] + rst_stream(2 * n + 1)
            for n in range(30_000)
        ),
        BEGUN + data(1, b"never opened"),
    ],
    ids=["HTTP/1", "TLS", "pings", "endless headers", "resets", "DATA"],
)
async def test_a_peer_that_breaks_the_rules_is_cut_off_and_others_are_served(
    served: Served, said: bytes
) -> None:
    client = await stranger(served.port, said)
    with suppress(ConnectionError):  # where it had more to say
        await client.hear_end()
    client.writer.close()
    await still_serves(served)


async def test_half_a_call_holds_nobody_up(served: Served) -> None:
    halves = [b"", PREFACE[:9], BEGUN, BEGUN + CALL[:20], BEGUN + CALL + data(1, b"half")[:-1]]
    clients = [await stranger(served.port, said) for said in halves]
    await still_serves(served)
    for client in clients:
        client.writer.close()


@pytest.mark.parametrize(
    "served",
    [Limits(MAX_MESSAGE_BYTES, preface_seconds=0.05, last_words_seconds=0.01)],
    indirect=True,
)
async def test_a_client_that_says_nothing_is_left_and_one_that_may_yet_call_is_not(
    served: Served,
) -> None:
    silent, idle = await stranger(served.port), await stranger(served.port, BEGUN)
    await silent.hear_end()
    idle.writer.write(CALL + data(1, b"late", flags=END_STREAM))
    assert (await idle.hear(DATA))[2] == prefixed(b"late")
    for client in (silent, idle):
        client.writer.close()


@pytest.mark.parametrize(
    "served",
    [
        Limits(MAX_MESSAGE_BYTES, max_connections=2, last_words_seconds=0.01),
        Limits(MAX_MESSAGE_BYTES, max_host_connections=2, last_words_seconds=0.01),
    ],
    ids=["of all", "of a host"],
    indirect=True,
)
async def test_connections_beyond_their_number_are_closed_where_all_others_have_calls(
    served: Served,
) -> None:
    begun = BEGUN + headers(1, request_of(ECHO)) + data(1, b"one")
    kept = [await stranger(served.port, begun) for _ in range(2)]
    for client in kept:
        await client.hear(DATA)
    surplus = await stranger(served.port, BEGUN)
    with suppress(ConnectionError):
        await surplus.hear_end()
    for client in (surplus, *kept):
        client.writer.close()


@pytest.mark.parametrize(
    "served",
    [
        Limits(MAX_MESSAGE_BYTES, turn_seconds=1e-4, last_words_seconds=0.01),
        Limits(MAX_MESSAGE_BYTES, max_turn_bytes=1, last_words_seconds=0.01),
    ],
    ids=["little time", "a byte"],
    indirect=True,
)
async def test_what_a_turn_of_the_loop_has_no_room_for_is_heard_in_the_next(
    served: Served,
) -> None:
    said = b"".join(
        headers(stream, request_of(ANSWER)) + data(stream, b"%d" % stream, flags=END_STREAM)
        for stream in range(1, 101, 2)
    )
    clients = [await stranger(served.port, BEGUN + said) for _ in range(3)]
    for client in clients:
        answers = [(await client.hear(DATA))[1:] for _ in range(50)]
        assert sorted(answers) == [
            (stream, prefixed(b"%d" % stream)) for stream in range(1, 101, 2)
        ]
        client.writer.close()


async def test_a_client_that_reads_nothing_keeps_its_handlers_alone_waiting(
    served: Served,
) -> None:
    calls = [
        headers(2 * number + 1, request_of(COUNT)) + data(2 * number + 1, b"1000000")
        for number in range(20)
    ]
    client = await stranger(served.port, PREFACE + settings(initial_window_size=(1 << 31) - 1))
    client.writer.write(window_update(0, (1 << 31) - 1 - 65535) + b"".join(calls))
    for _ in range(20):
        await still_serves(served)
    written = served.echo.num_written
    await still_serves(served)
    assert served.echo.num_written == written < 20_000_000 // LENGTH
    client.writer.transport.abort()
    await asyncio.wait_for(served.echo.cancelled.wait(), SECONDS)


async def test_requests_that_nobody_takes_are_bounded(served: Served) -> None:
    client = await stranger(served.port, BEGUN, headers(1, request_of(ECHO)), data(1, b"wait"))
    await asyncio.wait_for(served.echo.began.wait(), SECONDS)
    try:  # what the stream's window takes and no more may come
        client.writer.write(data(1, *[bytes(16_000)] * 1030))
        client.writer.write(data(1, bytes(1 << 20)))
        assert (await client.hear(RST_STREAM, GOAWAY))[0] in (RST_STREAM, GOAWAY)
    finally:
        client.writer.transport.abort()
    assert served.echo.num_read == 1


async def test_two_thousand_calls_at_once_are_served_on_one_connection(served: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        answer = channel.unary_unary(ANSWER)
        waiting = [answer(b"wait", timeout=60) for _ in range(MANY)]
        await asyncio.wait_for(served.echo.has_many.wait(), 60)
        assert len(set(served.echo.peers)) == 1
        served.echo.may_end.set()
        assert await asyncio.gather(*waiting) == [b"wait"] * MANY


async def test_an_answer_goes_on_when_its_client_gives_it_room_and_says_nothing_else(
    served: Served,
) -> None:
    window = 100
    client = await stranger(
        served.port,
        PREFACE + settings(initial_window_size=window),
        headers(1, request_of(COUNT)),
        data(1, b"1", flags=END_STREAM),
    )
    heard = 0
    while heard < 5 + LENGTH:
        heard += len((await client.hear(DATA))[2])
        client.writer.write(window_update(1, window))
    client.writer.close()


async def test_headers_on_a_stream_that_was_refused_begin_no_call(served: Served) -> None:
    client = await stranger(
        served.port,
        BEGUN,
        headers(1, request_of("/test.Echo/Nothing")),
        headers(1, request_of(ECHO), flags=END_HEADERS | END_STREAM),
        headers(3, request_of()),
        data(3, b"next", flags=END_STREAM),
    )
    assert (await client.hear_headers())["grpc-status"] == "12"
    await client.hear(DATA)
    client.writer.close()
    assert served.echo.num_echoes == 0
