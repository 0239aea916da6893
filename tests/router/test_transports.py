"""Both transports over real gRPC, to a service that sends back what it is sent, until it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.router.peers.transport import Transport
from services.wire.errors import Overloaded, ServingError, Unavailable
from tests.router.transports import TRANSPORTS, sending_back, transport_to


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Transport]:
    async with sending_back() as port, transport_to(port, kind) as transport:
        yield transport


def passed_over(message: bytes, arrived: int | None) -> None:
    """Whatever comes."""


pytestmark = pytest.mark.parametrize("kind", TRANSPORTS)


async def test_messages_come_back_whole_and_in_order_until_the_service_ends_the_stream(
    kind: str,
) -> None:
    sent = [bytes([n]) * n for n in range(1, 40)]
    received: list[bytes] = []
    async with opened(kind) as transport:
        delivering = asyncio.create_task(
            transport.deliver(lambda message, _: received.append(message))
        )
        for message in (*sent, b"end"):
            await transport.send(message)
        with pytest.raises(Unavailable, match="a:1 ended the stream"):
            await delivering
        with pytest.raises(Unavailable, match="a:1 ended the call"):
            await transport.send(b"more")
    assert received == sent


async def test_a_refusal_ends_the_transport_as_the_error_that_the_service_named(kind: str) -> None:
    async with opened(kind) as transport:
        await transport.send(b"refuse")
        with pytest.raises(Overloaded, match="100 % full, ä"):
            await transport.deliver(passed_over)


async def test_a_call_that_the_service_cancels_ends_the_transport(kind: str) -> None:
    async with opened(kind) as transport:
        await transport.send(b"cancel")
        with pytest.raises(ServingError, match=r"a:1 cancelled the call|given up"):
            await transport.deliver(passed_over)


async def test_what_a_receiver_raises_ends_the_delivery(kind: str) -> None:
    def receive(message: bytes, arrived: int | None) -> None:
        raise KeyError(message)

    async with opened(kind) as transport:
        await transport.send(b"frame")
        with pytest.raises(KeyError):
            await transport.deliver(receive)


async def test_a_transport_that_is_closed_says_so_to_whom_it_delivers_and_to_whom_sends(
    kind: str,
) -> None:
    async with opened(kind) as transport:
        delivering = asyncio.create_task(transport.deliver(passed_over))
        await transport.send(b"frame")
        transport.close()
        transport.close()
        with pytest.raises(ServingError):
            await delivering
        with pytest.raises(ServingError):
            await transport.send(b"more")


async def test_a_task_that_is_cancelled_while_it_delivers_ends_as_cancelled(kind: str) -> None:
    async with opened(kind) as transport:
        delivering = asyncio.create_task(transport.deliver(passed_over))
        await asyncio.sleep(0)
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
