"""The framing in C against grpcio: its clients on our server, our client on its server."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

import grpc
import pytest

from tests.wire.http2.conftest import Build

SIZES = (0, 1, 5, 1000, 16379, 16384, 16385, 65530, 65536, 1 << 18, (1 << 20) - 5, 1 << 22, 1 << 23)
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
NUM_STREAMS = 4


@dataclass
class Server:
    """`echo_server`, and what it says at its end."""

    process: subprocess.Popen[str]
    target: str

    def stop(self) -> list[str]:
        said, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return said.splitlines()


@pytest.fixture
def server(build: Build) -> Iterator[Server]:
    process = subprocess.Popen(
        [build("echo_server")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield Server(process, f"127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def messages(seed: int) -> list[bytes]:
    draw = Random(seed)
    return [draw.randbytes(size) for size in SIZES]


def echo(channel: grpc.aio.Channel, method: str = "Echo") -> grpc.aio.StreamStreamCall:
    return channel.stream_stream(f"/echo/{method}")()


async def test_an_aio_client_has_many_streams_echoed(server: Server) -> None:
    async def run(channel: grpc.aio.Channel, seed: int) -> None:
        sent = messages(seed)
        call = channel.stream_stream("/echo/Echo")(iter(sent))
        assert [message async for message in call] == sent
        assert await call.code() == grpc.StatusCode.OK

    async with grpc.aio.insecure_channel(server.target, options=UNLIMITED) as channel:
        async with asyncio.TaskGroup() as calls:
            for seed in range(NUM_STREAMS):
                calls.create_task(run(channel, seed))
    assert server.stop()[-1] == "0 reset"


async def test_an_aio_client_takes_turns_with_the_server(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.target, options=UNLIMITED) as channel:
        call = echo(channel)
        for message in messages(0):
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


def test_a_sync_client_has_many_streams_echoed(server: Server) -> None:
    def run(channel: grpc.Channel, seed: int) -> None:
        sent = messages(seed)
        assert list(channel.stream_stream("/echo/Echo")(iter(sent), timeout=60)) == sent

    with (
        grpc.insecure_channel(server.target, options=UNLIMITED) as channel,
        ThreadPoolExecutor(NUM_STREAMS) as pool,
    ):
        for done in [pool.submit(run, channel, seed) for seed in range(NUM_STREAMS)]:
            done.result(timeout=60)


async def test_many_short_calls_share_a_connection(server: Server) -> None:
    async def run(channel: grpc.aio.Channel, number: int) -> None:
        message = b"%d" % number
        call = channel.stream_stream("/echo/Echo")(iter([message]))
        assert [answer async for answer in call] == [message]

    async with grpc.aio.insecure_channel(server.target) as channel:
        for _ in range(3):
            async with asyncio.TaskGroup() as calls:
                for number in range(80):
                    calls.create_task(run(channel, number))


async def test_a_call_given_up_leaves_the_others(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        kept, given_up = echo(channel), echo(channel)
        for call in (kept, given_up):
            await call.write(b"first")
            assert await call.read() == b"first"
        given_up.cancel()
        await kept.write(b"second")
        assert await kept.read() == b"second"
        await kept.done_writing()
        assert await kept.code() == grpc.StatusCode.OK
    assert server.stop()[-1] == "1 reset"


async def test_a_server_may_end_first(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        call = echo(channel, "Once")
        await call.write(b"only")
        assert await call.read() == b"only"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_an_unknown_method_is_unimplemented(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        call = echo(channel, "Nothing")
        assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
        known = echo(channel)
        await known.write(b"message")
        assert await known.read() == b"message"


async def test_keepalive_pings_are_answered(server: Server) -> None:
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 200),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(server.target, options=options) as channel:
        call = echo(channel)
        await call.write(b"before")
        assert await call.read() == b"before"
        ended = asyncio.ensure_future(call.read())
        await asyncio.wait({ended}, timeout=1.5)
        assert not ended.done(), "an unanswered ping would have ended it"
        await call.write(b"after")
        assert await ended == b"after"


async def echoed(
    requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
) -> AsyncIterator[bytes]:
    async for message in requests:
        yield message


async def test_our_client_has_many_streams_echoed_by_an_aio_server(build: Build) -> None:
    server = grpc.aio.server(options=UNLIMITED)
    handlers = {"Echo": grpc.stream_stream_rpc_method_handler(echoed)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        client = await asyncio.create_subprocess_exec(
            build("echo_client"), str(port), str(NUM_STREAMS), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(client.communicate(), 60)
        assert (client.returncode, said.decode()) == (0, f"{NUM_STREAMS} calls\n")
    finally:
        await server.stop(0)


def test_our_client_has_many_streams_echoed_by_our_server(build: Build, server: Server) -> None:
    ended = subprocess.run(
        [build("echo_client"), server.target.partition(":")[2], str(NUM_STREAMS)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, f"{NUM_STREAMS} calls\n")
    assert server.stop()[-1] == "1 reset"
