"""Calls by clients of grpcio end alike whether our own server serves them or grpc.aio's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest

from services.runtime.native_server import AVAILABLE
from services.runtime.server import serving
from tests.runtime.native_server.echo import ANSWER, LENGTH, Echo, calls

SECONDS = 20.0


class Served:
    """The service, its port, and a channel to it."""

    def __init__(self, echo: Echo, port: int, channel: grpc.aio.Channel) -> None:
        self.echo = echo
        self.port = port
        self.channel = channel
        self.answer, self.count, self.converse = calls(channel)


@pytest.fixture(params=[True, False], ids=["native", "grpc.aio"])
def native(request: pytest.FixtureRequest) -> bool:
    if request.param and not AVAILABLE:
        pytest.skip("the connections were not compiled")
    return bool(request.param)


@pytest.fixture
async def served(native: bool) -> AsyncIterator[Served]:
    echo = Echo()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(
            serving(
                echo.register, listen="[::]:0", service_names=[], drain_seconds=0, native=native
            )
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        yield Served(echo, port, channel)


async def status_of(call: grpc.aio.Call) -> grpc.StatusCode:
    """How a call that fails has ended."""
    status: grpc.StatusCode = await call.code()
    return status


async def test_every_kind_of_call_is_answered(served: Served) -> None:
    for request in (b"", b"one", bytes(3 << 20)):
        assert await served.answer(request, timeout=SECONDS) == request
    counted = [len(message) async for message in served.count(b"20", timeout=SECONDS)]
    assert counted == [LENGTH] * 20
    sent = [bytes([number]) * number * 1000 for number in range(100)]
    echoed = [message async for message in served.converse(iter(sent), timeout=SECONDS)]
    assert echoed == sent


async def test_metadata_goes_both_ways(served: Served) -> None:
    call = served.answer(
        b"metadata",
        timeout=SECONDS,
        metadata=(("traceparent", "00-1"), ("key-bin", b"\x00\x01\xff"), ("empty", "")),
    )
    assert await call == b"metadata"
    seen = served.echo.metadata
    assert (seen["traceparent"], seen["key-bin"], seen["empty"]) == ("00-1", b"\x00\x01\xff", "")
    assert str(seen["user-agent"]).startswith("grpc-python-asyncio/")
    assert not {name for name in seen if name.startswith(":") or name in ("te", "grpc-timeout")}
    assert dict(await call.initial_metadata())["early"] == "word"
    trailing = dict(await call.trailing_metadata())
    assert (trailing["late-bin"], trailing["late"]) == (b"\x00\xff", "word")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_client_is_known_by_its_address(served: Served, host: str) -> None:
    async with grpc.aio.insecure_channel(f"{host}:{served.port}") as channel:
        await channel.unary_unary(ANSWER)(b"", timeout=SECONDS)
    family = {"127.0.0.1": "ipv4:127.0.0.1:", "[::1]": "ipv6:%5B::1%5D:"}[host]
    assert served.echo.peers[-1].startswith(family)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]"])
async def test_any_address_is_of_either_family_however_it_is_said(native: bool, host: str) -> None:
    listening = serving(
        Echo().register, listen=f"{host}:0", service_names=[], drain_seconds=0, native=native
    )
    async with listening as port:
        for reached in ("127.0.0.1", "[::1]"):
            async with grpc.aio.insecure_channel(f"{reached}:{port}") as channel:
                assert await channel.unary_unary(ANSWER)(b"x", timeout=SECONDS) == b"x"


async def test_a_handler_that_aborts_says_why(served: Served) -> None:
    call = served.answer(b"abort", timeout=SECONDS)
    assert await status_of(call) == grpc.StatusCode.PERMISSION_DENIED
    assert (await call.details()).strip() == "not für you: 100 %"
    assert dict(await call.trailing_metadata())["why"] == "so"


async def test_a_method_that_is_not_there_is_unimplemented(served: Served) -> None:
    call = served.channel.unary_unary("/test.Echo/Other")(b"", timeout=SECONDS)
    assert await status_of(call) == grpc.StatusCode.UNIMPLEMENTED


async def test_a_handler_knows_how_long_its_caller_waits_and_is_ended_then(served: Served) -> None:
    call = served.answer(b"wait", timeout=0.3)
    assert await status_of(call) == grpc.StatusCode.DEADLINE_EXCEEDED
    assert served.echo.seconds is not None
    assert 0 < served.echo.seconds <= 0.31
    await asyncio.wait_for(served.echo.cancelled.wait(), SECONDS)


async def test_a_call_without_a_deadline_has_none(served: Served) -> None:
    assert await served.answer(b"") == b""
    assert served.echo.seconds is None


async def test_a_client_that_leaves_ends_its_handler(served: Served) -> None:
    call = served.answer(b"wait", timeout=SECONDS)
    await served.echo.began.wait()
    call.cancel()
    await asyncio.wait_for(served.echo.cancelled.wait(), SECONDS)
    assert await served.answer(b"next", timeout=SECONDS) == b"next"


async def test_a_connection_that_is_lost_ends_its_handlers(served: Served) -> None:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{served.port}")
    call = channel.unary_stream("/test.Echo/Count")(b"1000000", timeout=SECONDS)
    await call.read()
    await channel.close()
    await asyncio.wait_for(served.echo.cancelled.wait(), SECONDS)


async def test_a_client_that_does_not_read_stops_its_own_handler_alone(served: Served) -> None:
    slow = served.count(b"1000000", timeout=60)
    messages = aiter(slow)
    await anext(messages)
    for number in range(50):
        assert await served.answer(b"%d" % number, timeout=SECONDS) == b"%d" % number
    assert not served.echo.cancelled.is_set()
    assert served.echo.num_written < 100_000  # what the client's own windows let through
    for _ in range(100):
        assert len(await anext(messages)) == LENGTH
    slow.cancel()
    await asyncio.wait_for(served.echo.cancelled.wait(), SECONDS)


async def test_a_handler_that_does_not_read_stops_its_own_client(served: Served) -> None:
    call = served.converse(timeout=SECONDS)
    await call.write(b"wait")
    num_written = 0
    try:
        async with asyncio.timeout(0.5):
            for _ in range(4000):
                await call.write(bytes(LENGTH))
                num_written += 1
    except TimeoutError:
        pass  # grpc.aio ends a call whose write is given up
    assert num_written < 4000
    assert served.echo.num_read == 1


async def test_compressed_requests_are_understood(served: Served) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{served.port}", compression=compression
        ) as channel:
            answer, _, converse = calls(channel)
            assert await answer(b"a" * 10_000, timeout=SECONDS) == b"a" * 10_000
            sent = [b"b" * 5000, b"c"]
            assert [each async for each in converse(iter(sent), timeout=SECONDS)] == sent


async def test_messages_above_the_limit_are_refused_both_ways(served: Served) -> None:
    call = served.answer(bytes((16 << 20) + 1), timeout=SECONDS)
    assert await status_of(call) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await served.answer(b"next", timeout=SECONDS) == b"next"


async def test_a_server_may_take_shorter_requests_alone(native: bool) -> None:
    echo = Echo()
    async with (
        serving(
            echo.register,
            listen="127.0.0.1:0",
            service_names=[],
            drain_seconds=0,
            native=native,
            max_request_bytes=lambda: 1000,
        ) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        answer, count, _ = calls(channel)
        assert await status_of(answer(bytes(1001))) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await answer(bytes(1000)) == bytes(1000)
        assert [len(message) async for message in count(b"1")] == [LENGTH]


async def one(served: Served, request: bytes) -> bytes:
    answered: bytes = await served.answer(request, timeout=60)
    return answered


async def test_a_synchronous_client_is_served(served: Served) -> None:
    def asked() -> tuple[bytes, list[int]]:
        with grpc.insecure_channel(f"localhost:{served.port}") as channel:
            answer = channel.unary_unary(ANSWER)(b"one", timeout=SECONDS)
            counted = channel.unary_stream("/test.Echo/Count")(b"3", timeout=SECONDS)
            return answer, [len(message) for message in counted]

    assert await asyncio.to_thread(asked) == (b"one", [LENGTH] * 3)


async def test_calls_in_flight_end_while_the_service_drains(native: bool) -> None:
    echo = Echo()
    channel: grpc.aio.Channel
    async with serving(
        echo.register, listen="127.0.0.1:0", service_names=[], drain_seconds=SECONDS, native=native
    ) as port:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        call = asyncio.create_task(one(Served(echo, port, channel), b"wait"))
        await echo.began.wait()
        asyncio.get_running_loop().call_later(0.1, echo.may_end.set)
    assert await call == b"wait"
    await channel.close()


async def test_calls_that_do_not_end_in_time_are_cut(native: bool) -> None:
    echo = Echo()
    async with serving(
        echo.register, listen="127.0.0.1:0", service_names=[], drain_seconds=0.1, native=native
    ) as port:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        call = channel.unary_unary(ANSWER)(b"wait", timeout=SECONDS)
        await echo.began.wait()
    assert await status_of(call) == grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(echo.cancelled.wait(), SECONDS)
    await channel.close()
