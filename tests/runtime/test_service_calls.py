"""Calls to a service are the same over gRPC's library and over a connection of ours, whichever of
the two serves them.
"""

import asyncio
import socket

import pytest

from services.runtime.connecting import connected_to
from services.runtime.service_calls import ServiceCall
from services.wire.errors import BadState, Overloaded, ServingError, Unavailable
from tests.runtime.services import (
    ANSWER,
    KINDS,
    NAME,
    READ_NOTHING,
    SEND_BACK,
    SERVICE,
    TOO_LARGE,
    choose,
    connected_service,
)


@pytest.fixture(autouse=True, params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    choose(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture(params=KINDS)
def server_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def passed_over(message: bytes, arrived: int | None) -> None:
    """Whatever comes."""


async def test_messages_come_back_whole_and_in_order_until_the_service_ends_the_call(
    kind: str, server_kind: str
) -> None:
    sent = [bytes([n]) * size for n, size in enumerate((0, 1, 1000, 1 << 20, 3 << 20, 5) * 3)]
    received: list[bytes] = []
    async with connected_service(server_kind) as connection:
        assert connection.kind == kind
        call = connection.call(SEND_BACK)
        delivering = asyncio.create_task(call.deliver(lambda message, _: received.append(message)))
        for message in (*sent, b"end"):
            await call.send(message)
        with pytest.raises(Unavailable, match=f"{NAME} ended the stream"):
            await delivering
        with pytest.raises(Unavailable, match=f"{NAME} ended the call"):
            await call.send(b"more")
    assert received == sent


async def test_what_comes_before_anybody_asks_for_it_waits(server_kind: str) -> None:
    received: list[bytes] = []
    async with connected_service(server_kind) as connection:
        call = connection.call(SEND_BACK)
        for message in (b"one", b"two", b"end"):
            await call.send(message)
        await connection.ask(ANSWER, b"meanwhile", timeout_seconds=10)
        with pytest.raises(Unavailable, match="ended the stream"):
            await call.deliver(lambda message, _: received.append(message))
    assert received == [b"one", b"two"]


async def test_a_refusal_is_the_error_that_the_service_named(server_kind: str) -> None:
    async with connected_service(server_kind) as connection:
        call = connection.call(SEND_BACK)
        await call.send(b"refuse")
        with pytest.raises(BadState, match="another model"):
            await call.deliver(passed_over)
        with pytest.raises(Overloaded, match="100 % full, ä"):
            await connection.ask(ANSWER, b"refuse", timeout_seconds=10)


async def test_a_call_that_the_service_cancels_is_no_cancelled_task(server_kind: str) -> None:
    async with connected_service(server_kind) as connection:
        call = connection.call(SEND_BACK)
        await call.send(b"cancel")
        with pytest.raises(ServingError, match=r"cancelled the call|given up"):
            await call.deliver(passed_over)


async def test_what_a_receiver_raises_ends_its_call_alone(server_kind: str) -> None:
    def receive(message: bytes, arrived: int | None) -> None:
        raise KeyError(message)

    async with connected_service(server_kind) as connection:
        call = connection.call(SEND_BACK)
        await call.send(b"frame")
        with pytest.raises(KeyError):
            await call.deliver(receive)
        assert await connection.ask(ANSWER, b"still there", timeout_seconds=10) == b"still there"


async def test_a_closed_call_says_so_to_whom_it_delivers_and_to_whom_sends(
    server_kind: str,
) -> None:
    async with connected_service(server_kind) as connection:
        call = connection.call(SEND_BACK)
        delivering = asyncio.create_task(call.deliver(passed_over))
        await call.send(b"frame")
        call.close()
        call.close()
        with pytest.raises(ServingError):
            await delivering
        with pytest.raises(ServingError):
            await call.send(b"more")


async def test_a_task_that_is_cancelled_while_it_delivers_ends_as_cancelled(
    server_kind: str,
) -> None:
    async with connected_service(server_kind) as connection:
        call = connection.call(SEND_BACK)
        delivering = asyncio.create_task(call.deliver(passed_over))
        await asyncio.sleep(0)
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
        call.close()


async def test_an_answer_is_not_waited_for_without_end(server_kind: str) -> None:
    async with connected_service(server_kind) as connection:
        with pytest.raises(ServingError):
            await connection.ask(ANSWER, b"never", timeout_seconds=0.05)
        assert await connection.ask(ANSWER, b"well", timeout_seconds=10) == b"well"


async def test_a_method_that_is_not_there_is_an_error(server_kind: str) -> None:
    async with connected_service(server_kind) as connection:
        with pytest.raises(ServingError):
            await connection.ask(f"/{SERVICE}/Nothing", b"", timeout_seconds=10)


async def test_a_message_that_is_too_large_is_refused_in_both_directions(server_kind: str) -> None:
    async with connected_service(server_kind) as connection:
        call = connection.call(SEND_BACK)
        await call.send(b"too large")
        with pytest.raises(Overloaded):
            await call.deliver(passed_over)
        with pytest.raises(ServingError):
            await send_and_deliver(connection.call(SEND_BACK), bytes(TOO_LARGE))


async def send_and_deliver(call: ServiceCall, message: bytes) -> None:
    await call.send(message)
    await call.deliver(passed_over)


async def test_a_service_that_does_not_read_is_waited_for(server_kind: str) -> None:
    async with connected_service(server_kind) as connection:
        call = connection.call(READ_NOTHING)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_for_ever(call), timeout=0.2)
        call.close()


async def send_for_ever(call: ServiceCall) -> None:
    while True:
        await call.send(bytes(1 << 20))


async def test_a_connection_that_is_closed_ends_its_calls(server_kind: str) -> None:
    async with connected_service(server_kind) as connection:
        call = connection.call(SEND_BACK)
        await call.send(b"frame")
    with pytest.raises(ServingError):
        await call.deliver(passed_over)


async def test_nobody_at_an_address_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(Unavailable, match="onnect"):
        async with connected_to(f"127.0.0.1:{port}", NAME, timeout_seconds=5) as connection:
            await connection.ask(ANSWER, b"", timeout_seconds=5)
