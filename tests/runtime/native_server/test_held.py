"""Requests that come in part, or that no handler takes, cost the server no more than a bound."""

import asyncio

import pytest

from services.runtime.native_server import AVAILABLE, Limits
from services.runtime.native_server.requests import Requests
from services.runtime.server import MAX_MESSAGE_BYTES
from tests.runtime.native_server.echo import ECHO
from tests.runtime.native_server.stranger import (
    BEGUN,
    SECONDS,
    Served,
    request_of,
    still_serves,
    stranger,
)
from tests.wire.http2.frames import (
    DATA,
    END_STREAM,
    HEADERS,
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

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the connections were not compiled")

HELD = Limits(1 << 20, max_held_bytes=3 << 20, max_all_held_bytes=5 << 20, last_words_seconds=0.01)


def most_of_call(stream: int) -> bytes:
    """A call with a request of nearly a MiB, but for its last byte."""
    return headers(stream, request_of()) + frame(DATA, stream, prefixed(bytes(1_048_000))[:-1])


@pytest.mark.parametrize("served", [HELD], indirect=True)
async def test_a_connection_that_holds_back_the_ends_of_its_requests_loses_those_beyond_a_bound(
    served: Served,
) -> None:
    client = await stranger(served.port, BEGUN)
    for stream in (1, 3, 5, 7):
        client.writer.write(most_of_call(stream))
    assert await client.hear(RST_STREAM) == (RST_STREAM, 7, (11).to_bytes(4, "big"))
    await still_serves(served)
    client.writer.write(rst_stream(3) + most_of_call(9) + frame(DATA, 9, bytes(1)))
    assert (await client.hear(RST_STREAM, HEADERS))[:2] == (HEADERS, 9)
    client.writer.close()


@pytest.mark.parametrize("served", [HELD], indirect=True)
@pytest.mark.parametrize("compressed", [0, 1])
async def test_a_connection_whose_requests_nobody_takes_loses_those_beyond_a_bound(
    served: Served, compressed: int
) -> None:
    client = await stranger(served.port, BEGUN)
    for stream in (1, 3, 5, 7):
        client.writer.write(headers(stream, request_of(ECHO, grpc_encoding="gzip")))
        request = prefixed(bytes(1_048_000), compressed)
        client.writer.write(data(stream, b"wait") + frame(DATA, stream, request))
    assert (await client.hear_headers())["grpc-status"] == "8"
    await still_serves(served)
    client.writer.close()


@pytest.mark.parametrize("served", [HELD], indirect=True)
async def test_who_holds_least_goes_on_where_connections_hold_too_much_together(
    served: Served,
) -> None:
    small, *large = [await stranger(served.port, BEGUN) for _ in range(3)]
    small.writer.write(most_of_call(1))
    await small.hear(4)
    for client in large:
        client.writer.write(b"".join(map(most_of_call, (1, 3, 5))))
    heard = [asyncio.create_task(client.hear_headers()) for client in large]
    await asyncio.wait(heard, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result()["grpc-status"] for task in heard if task.done()] == ["8"]
    assert not served.echo.began.is_set()
    small.writer.write(frame(DATA, 1, bytes(1)))
    await asyncio.wait_for(served.echo.began.wait(), SECONDS)
    for task in heard:
        task.cancel()
    for client in (small, *large):
        client.writer.transport.abort()  # not all that it wrote may have been read


async def test_a_flood_of_empty_requests_that_waited_is_taken_in_turns(served: Served) -> None:
    client = await stranger(served.port, PREFACE + settings(initial_window_size=1 << 30))
    client.writer.write(window_update(0, 1 << 30))
    client.writer.write(headers(1, request_of(ECHO)) + data(1, b"wait"))
    await asyncio.wait_for(served.echo.began.wait(), SECONDS)
    for _ in range(10):
        client.writer.write(data(1, *[b""] * 3000))
    client.writer.write(data(1, b"last", flags=END_STREAM))
    await still_serves(served)
    served.echo.may_end.set()
    while (await client.hear(DATA))[2] != prefixed(b"last"):
        pass
    assert served.echo.num_read == 30_002
    client.writer.close()


async def test_a_handler_that_does_nothing_but_read_lets_others_have_their_turn() -> None:
    num_turns = 0

    async def same(message: bytes) -> bytes:
        return message

    async def take_turns() -> None:
        nonlocal num_turns
        while True:
            await asyncio.sleep(0)
            num_turns += 1

    def resume(most: int) -> None:
        for _ in range(most):
            requests.add(b"")

    limits = Limits(MAX_MESSAGE_BYTES, max_waiting_requests=10)
    requests = Requests(limits, lambda: None, resume, lambda change: True, same)
    resume(10)
    others = asyncio.create_task(take_turns())
    for _ in range(1000):
        await anext(requests)
    others.cancel()
    assert num_turns >= 90


async def test_what_a_paused_client_said_is_taken_though_it_comes_in_parts() -> None:
    """A turn of the loop may be over in the middle of it, and its handler be quick."""
    loop = asyncio.get_running_loop()
    kept = [bytes([number]) for number in range(30)]

    async def same(message: bytes) -> bytes:
        return message

    def resume(most: int) -> None:
        """As a connection does whose turn ends behind the first message."""
        first, *others = kept[:most]
        del kept[:most]
        requests.add(first)
        loop.call_later(0.001, lambda: [requests.add(message) for message in others])

    limits = Limits(MAX_MESSAGE_BYTES, max_waiting_requests=10)
    requests = Requests(limits, lambda: None, resume, lambda change: True, same)
    said = list(kept)
    resume(10)
    requests.add(b"")  # one more, and the client is paused
    async with asyncio.timeout(SECONDS):
        await asyncio.sleep(0.01)
        taken = [await anext(requests) for _ in range(31)]
    assert sorted(taken) == sorted([b"", *said])
