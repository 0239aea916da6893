"""Clients that connect and do nothing, or that take their time, make room for others."""

import asyncio

import pytest

from services.runtime.native_server import AVAILABLE, Limits
from services.runtime.server import MAX_MESSAGE_BYTES
from tests.runtime.native_server.echo import ANSWER, ECHO
from tests.runtime.native_server.stranger import (
    BEGUN,
    CALL,
    SECONDS,
    Served,
    Stranger,
    request_of,
    still_serves,
    stranger,
)
from tests.wire.http2.frames import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    SETTINGS,
    data,
    frame,
    headers,
    prefixed,
)

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the connections were not compiled")

FULL = Limits(MAX_MESSAGE_BYTES, max_connections=3, last_words_seconds=0.01)
SHORT = Limits(MAX_MESSAGE_BYTES, request_seconds=0.2, last_words_seconds=0.01)


async def heard(port: int, *said: bytes) -> Stranger:
    """A client that the server has answered."""
    client = await stranger(port, *said)
    await client.hear(SETTINGS)
    return client


@pytest.mark.parametrize("served", [FULL], indirect=True)
@pytest.mark.parametrize("idle", [b"", PREFACE[:9], BEGUN], ids=["mute", "half", "idle"])
async def test_the_client_that_has_had_no_call_for_longest_gives_way(
    served: Served, idle: bytes
) -> None:
    working = await heard(served.port, BEGUN, CALL, data(1, b"wait", flags=END_STREAM))
    await asyncio.wait_for(served.echo.began.wait(), SECONDS)
    rested = await heard(served.port, idle)
    later = await heard(served.port, BEGUN, CALL, data(1, b"one", flags=END_STREAM))
    await later.hear(DATA)
    await still_serves(served)
    assert (await rested.hear(GOAWAY))[2][4:8] == bytes(4)
    await rested.hear_end()
    served.echo.may_end.set()
    assert (await working.hear(DATA))[2] == prefixed(b"wait")
    for client in (working, rested, later):
        client.writer.close()


@pytest.mark.parametrize("served", [FULL], indirect=True)
async def test_clients_that_ask_for_no_call_in_full_give_way_after_those_without_one(
    served: Served,
) -> None:
    clients = [await heard(served.port, BEGUN, CALL) for _ in range(2)]
    idle = await heard(served.port, BEGUN)
    await still_serves(served)
    await idle.hear_end()
    another = await heard(served.port, BEGUN, CALL)  # in the place of who was served
    await still_serves(served)
    await clients[0].hear_end()
    for client in (*clients, idle, another):
        client.writer.close()


@pytest.mark.parametrize(
    "served",
    [Limits(MAX_MESSAGE_BYTES, idle_seconds=0.1, last_words_seconds=0.01)],
    indirect=True,
)
async def test_a_client_without_a_call_is_told_to_go_and_one_with_a_call_is_not(
    served: Served,
) -> None:
    working = await heard(served.port, BEGUN, headers(1, request_of(ECHO)))
    idle = await heard(served.port, BEGUN)
    assert (await idle.hear(GOAWAY))[2][4:8] == bytes(4)
    await idle.hear_end()
    working.writer.write(data(1, b"late", flags=END_STREAM))
    assert (await working.hear(DATA, GOAWAY))[2] == prefixed(b"late")
    await working.hear(GOAWAY)  # its call is over
    for client in (working, idle):
        client.writer.close()


HALF = prefixed(b"half of it")[:-3]


@pytest.mark.parametrize("served", [SHORT], indirect=True)
@pytest.mark.parametrize(
    ("path", "come"),
    [
        (ANSWER, b""),
        (ANSWER, HALF[:3]),
        (ANSWER, HALF),
        (ECHO, HALF),
        (ECHO, prefixed(b"1") + HALF),
    ],
    ids=["nothing", "a prefix", "half", "of a stream", "the second"],
)
async def test_a_request_that_takes_too_long_ends_its_call_alone(
    served: Served, path: str, come: bytes
) -> None:
    client = await stranger(served.port, BEGUN, headers(1, request_of(ECHO)))
    client.writer.write(headers(3, request_of(path)) + frame(DATA, 3, come))
    answer = await client.hear_headers()
    while "grpc-status" not in answer:
        answer = await client.hear_headers()
    assert answer["grpc-status"] == "4"
    client.writer.write(data(1, b"later"))
    assert (await client.hear(DATA))[1:] == (1, prefixed(b"later"))
    client.writer.close()


@pytest.mark.parametrize("served", [SHORT], indirect=True)
@pytest.mark.parametrize(
    "said",
    [CALL[:-3], CALL[:4], headers(1, request_of(), 0), headers(1, request_of(), 0) + frame(9, 1)],
    ids=["a frame", "its header", "a block", "a longer block"],
)
async def test_a_header_block_that_takes_too_long_ends_its_connection(
    served: Served, said: bytes
) -> None:
    client = await stranger(served.port, BEGUN, said)
    await client.hear(GOAWAY)
    await client.hear_end()
    client.writer.close()


@pytest.mark.parametrize("served", [SHORT], indirect=True)
async def test_a_request_that_waits_for_its_handler_is_not_late(served: Served) -> None:
    client = await stranger(served.port, BEGUN, headers(1, request_of(ECHO)))
    waiting = data(1, b"wait", *[bytes(1000)] * 1000)
    client.writer.write(waiting)
    await asyncio.wait_for(served.echo.began.wait(), SECONDS)
    short = await stranger(served.port, BEGUN, headers(1, request_of()))
    assert (await short.hear_headers())["grpc-status"] == "4"
    served.echo.may_end.set()
    for _ in range(60):
        assert (await client.hear(DATA, HEADERS))[0] in (DATA, HEADERS)
    assert not client.reader.at_eof()
    for each in (client, short):
        each.writer.close()
