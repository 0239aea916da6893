"""Messages of every size pass a native transport whole and in order, at the pace of its peer, and
each has the moment at which it came.
"""

import asyncio
import random
import select
import socket
import time

import pytest

from services.router.peers.native_transport import NativeTransport
from services.router.peers.transport import DISPATCH
from services.runtime.connected_socket import connected_socket
from services.runtime.server import MAX_MESSAGE_BYTES
from services.wire.errors import ServingError, Unavailable
from tests.router.native.raw_service import (
    BEGINNING,
    PING,
    WINDOW_UPDATE,
    connected_pair,
    frame,
    message,
    number,
    tell,
)
from tests.router.transports import NAME, NATIVE, sending_back, transport_to

pytestmark = NATIVE

# Around what frames, windows and buffers hold.
SIZES = [0, 1, 4096, 16378, 16379, 16384, 65529, 65530, 65535, 65536, 1 << 20, MAX_MESSAGE_BYTES]


@pytest.mark.parametrize("waits", [True, False], ids=["one by one", "all at once"])
async def test_messages_of_every_size_come_back_from_grpc(waits: bool) -> None:
    rng, received = random.Random(0), asyncio.Queue[bytes](len(SIZES))
    async with sending_back() as port, transport_to(port, "native") as transport:
        delivering = asyncio.create_task(
            transport.deliver(lambda data, _: received.put_nowait(data))
        )
        sent = [rng.randbytes(size) for size in SIZES]
        for data in sent:
            await transport.send(data)
            if waits:
                assert await received.get() == data
        if not waits:
            assert [await received.get() for _ in sent] == sent
        transport.close()
        with pytest.raises(ServingError):
            await delivering


async def test_a_message_is_written_before_the_call_that_sends_it_returns() -> None:
    async with connected_pair() as (transport, theirs):
        greeting = theirs.recv(1 << 16)
        assert DISPATCH.encode() in greeting
        assert transport.try_send(b"frame")
        assert theirs.recv(1 << 16) == message(b"frame")


async def test_a_service_that_reads_nothing_is_sent_no_more_than_one_message_ahead() -> None:
    async with connected_pair() as (transport, theirs):
        window = frame(WINDOW_UPDATE, number(1 << 30))
        await tell(theirs, BEGINNING + window + frame(WINDOW_UPDATE, number(1 << 30), stream=0))
        await transport.begun(10)
        num_sent = 0
        while transport.try_send(b"f" * (1 << 16)):
            num_sent += 1
        assert 0 < num_sent < 100
        sending = asyncio.create_task(transport.send(b"last"))
        num_read = 0
        while not sending.done():
            num_read += len(await asyncio.get_running_loop().sock_recv(theirs, 1 << 16))
        assert num_read > (num_sent - 1) << 16


async def test_a_service_that_opens_no_window_is_sent_no_more_than_one_message_ahead() -> None:
    async with connected_pair() as (transport, theirs):
        await tell(theirs, BEGINNING)
        await transport.begun(10)
        assert transport.try_send(b"f" * (1 << 17))
        assert not transport.try_send(b"more")
        sending = asyncio.create_task(transport.send(b"last"))
        window = frame(WINDOW_UPDATE, number(1 << 20))
        await tell(theirs, window + frame(WINDOW_UPDATE, number(1 << 20), stream=0))
        await sending


async def test_who_waits_to_send_hears_that_the_call_is_over() -> None:
    async with connected_pair() as (transport, theirs):
        await tell(theirs, BEGINNING)
        await transport.begun(10)
        assert transport.try_send(b"f" * (1 << 17))
        sending = asyncio.create_task(transport.send(b"last"))
        await asyncio.sleep(0)
        theirs.close()
        with pytest.raises(Unavailable, match="ended the call"):
            await sending


async def test_pings_are_answered_and_messages_come_in_any_pieces() -> None:
    received: list[bytes] = []
    said = BEGINNING + message(b"one") + message(b"two")
    async with connected_pair() as (transport, theirs):
        delivering = asyncio.create_task(transport.deliver(lambda data, _: received.append(data)))
        for byte in said + frame(PING, b"ping its", stream=0):
            await tell(theirs, bytes([byte]))
            await asyncio.sleep(0)
        heard = b""
        while b"ping its" not in heard:
            heard += await asyncio.get_running_loop().sock_recv(theirs, 1 << 16)
        assert received == [b"one", b"two"]
        theirs.close()
        with pytest.raises(Unavailable):
            await delivering


async def dated_on_time(descriptor: int, theirs: socket.socket, arrived: list[int | None]) -> bool:
    """Whether a message that is read late has the moment at which it came."""
    arrived.clear()
    before = time.perf_counter_ns()
    theirs.sendall(message(b"frame"))
    select.select([descriptor], [], [])
    there = time.perf_counter_ns()
    time.sleep(0.01)  # noqa: ASYNC251 -- another lane computes
    while not arrived:  # noqa: ASYNC110 -- the loop reads it when it gets to it
        await asyncio.sleep(0)
    return arrived[0] is not None and before <= arrived[0] <= there


async def test_a_message_is_dated_when_it_came_and_not_when_it_was_read() -> None:
    """The kernel begins to date what arrives a little after it is first asked to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        made = await connected_socket("127.0.0.1:1", port, timeout_seconds=10)
        theirs, _ = listening.accept()
    with theirs:
        descriptor, transport = made.fileno(), NativeTransport(made, "a:1", NAME)
        arrived: list[int | None] = []
        delivering = asyncio.create_task(transport.deliver(lambda _, at: arrived.append(at)))
        theirs.sendall(BEGINNING)
        await transport.begun(10)
        async with asyncio.timeout(10):
            while not await dated_on_time(descriptor, theirs, arrived):
                pass
        transport.close()
        with pytest.raises(ServingError):
            await delivering
