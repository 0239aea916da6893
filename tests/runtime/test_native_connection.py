"""Whatever a service says, or does not say, ends a connection of ours as an error of the family."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from services.runtime.connected_socket import connected_socket
from services.runtime.native_connection import NativeConnection
from services.wire.errors import InvalidRequest, ServingError, Unavailable
from tests.router.native.raw_service import (
    BEGINNING,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    HELLO,
    PING,
    RST_STREAM,
    frame,
    headers,
    message,
    number,
    tell,
)
from tests.runtime.services import ANSWER, NAME, NATIVE, SEND_BACK, WATCH, service_process

pytestmark = NATIVE
ACK = 1
OK = headers(("grpc-status", "0"), ends=True)


@asynccontextmanager
async def connected_pair(
    silence_seconds: float = 60,
) -> AsyncIterator[tuple[NativeConnection, socket.socket]]:
    """A connection, and the socket at its other end, which does not block."""
    ours, theirs = socket.socketpair()
    with theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        connection = NativeConnection(ours, "a:1", NAME, silence_seconds=silence_seconds)
        try:
            yield connection, theirs
        finally:
            connection.close()


async def delivered(connection: NativeConnection) -> list[bytes]:
    """What comes on a call until it ends, which raises."""
    received: list[bytes] = []
    await connection.call(SEND_BACK).deliver(lambda message, _: received.append(message))
    return received


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9, Unavailable, "the stream to .* broke"),
        (HELLO + headers((":status", "503"), ends=True), Unavailable, "HTTP status 503"),
        (HELLO + headers((":status", "404"), ends=True), ServingError, "HTTP status 404"),
        (
            HELLO + headers((":status", "200"), ("content-type", "text/html")),
            ServingError,
            "text/html, no gRPC",
        ),
        (HELLO + frame(HEADERS, b"\xff\xff", flags=END_HEADERS), InvalidRequest, "header block"),
        (BEGINNING + message(b"last", ends=True), Unavailable, "the stream to .* broke"),
        (BEGINNING + OK, Unavailable, f"{NAME} ended the stream"),
        (BEGINNING + frame(RST_STREAM, number(8)), Unavailable, "cancelled the call"),
        (BEGINNING + frame(RST_STREAM, number(2)), ServingError, "reset the stream with code 2"),
        (BEGINNING + frame(GOAWAY, number(0) + number(0), stream=0), Unavailable, "code 7"),
        (BEGINNING + headers(("a", "b")) * 9, ServingError, "more than 8 header blocks"),
    ],
)
async def test_an_end_that_is_none_of_grpc_is_told_as_what_it_is(
    said: bytes, error: type[ServingError], words: str
) -> None:
    async with connected_pair() as (connection, theirs):
        call = asyncio.create_task(delivered(connection))
        await asyncio.sleep(0)
        await tell(theirs, said)
        with pytest.raises(error, match=words):
            await call


async def test_a_service_that_goes_ends_what_is_under_way_and_takes_no_call_any_more() -> None:
    async with connected_pair() as (connection, theirs):
        call = asyncio.create_task(delivered(connection))
        await asyncio.sleep(0)
        theirs.close()
        with pytest.raises(Unavailable, match=r"the stream to .* broke"):
            await call
        with pytest.raises(Unavailable, match="takes no call"):
            connection.call(SEND_BACK)


@pytest.mark.parametrize("answers", [b"", message(b"one") + message(b"two")])
async def test_an_answer_is_one_message(answers: bytes) -> None:
    async with connected_pair() as (connection, theirs):
        asked = asyncio.create_task(connection.ask(ANSWER, b"", timeout_seconds=10))
        await tell(theirs, BEGINNING + answers + OK)
        with pytest.raises(Unavailable, match="ended the stream"):
            await asked


async def test_what_is_sent_in_one_turn_of_the_loop_goes_out_in_one_write() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        connection = NativeConnection(ours, "a:1", NAME)
        call = connection.call(SEND_BACK)
        assert call.try_send(b"first message")
        await call.send(b"second message")
        written = await asyncio.get_running_loop().sock_recv(theirs, 1 << 16)
        assert b"first message" in written
        assert b"second message" in written
        connection.close()


async def test_a_service_of_which_nothing_is_heard_is_given_up() -> None:
    async with connected_pair(silence_seconds=0.02) as (connection, _):
        with pytest.raises(Unavailable, match="nothing is heard of it"):
            await delivered(connection)


@pytest.mark.alone
async def test_a_service_that_answers_pings_is_kept_however_long_it_says_nothing_else() -> None:
    async with connected_pair(silence_seconds=0.1) as (connection, theirs):
        call = asyncio.create_task(delivered(connection))
        await tell(theirs, BEGINNING)
        for _ in range(2):
            await asked_for_life(theirs)
            await tell(theirs, frame(PING, bytes(8), flags=ACK, stream=0))
        await tell(theirs, OK)
        with pytest.raises(Unavailable, match="ended the stream"):
            await call


async def asked_for_life(theirs: socket.socket) -> None:
    """Return when a PING came."""
    while frame(PING, bytes(8), stream=0) not in await asyncio.get_running_loop().sock_recv(
        theirs, 1 << 16
    ):
        pass


@pytest.mark.alone
async def test_a_process_that_hangs_is_given_up_though_its_system_confirms_bytes() -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()
    async with service_process() as (process, port):
        connected = await connected_socket(f"127.0.0.1:{port}", port, timeout_seconds=10)
        with closing(NativeConnection(connected, "a:1", NAME, silence_seconds=0.5)) as connection:
            call = connection.call(WATCH)
            await call.send(b"")
            call_ended = asyncio.create_task(
                call.deliver(lambda message, _: received.put_nowait(message))
            )
            await received.get()
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(Unavailable, match="nothing is heard of it"):
                await call_ended
