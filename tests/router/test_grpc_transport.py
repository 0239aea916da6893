"""A transport over real gRPC, to a service that sends back what it is sent until told to end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from services.router.peers.grpc_transport import DISPATCH, GrpcTransport
from services.runtime.channels import open_channel
from services.runtime.server import serving
from services.wire.errors import Overloaded, ServingError, Unavailable

SERVICE, METHOD = DISPATCH.strip("/").split("/")


async def send_back(
    requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
) -> AsyncIterator[bytes]:
    async for message in requests:
        if message == b"end":
            return
        if message == b"refuse":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
        yield message


@asynccontextmanager
async def opened() -> AsyncIterator[GrpcTransport]:
    handlers = {METHOD: grpc.stream_stream_rpc_method_handler(send_back)}

    def register(server: grpc.aio.Server) -> None:
        server.add_registered_method_handlers(SERVICE, handlers)

    async with serving(
        register, listen="127.0.0.1:0", service_names=[SERVICE], drain_seconds=0
    ) as port:
        channel = open_channel(f"127.0.0.1:{port}")
        transport = GrpcTransport(channel, "expert service a:1")
        try:
            yield transport
        finally:
            transport.close()
            await channel.close()


async def test_messages_come_back_whole_and_in_order_until_the_service_ends_the_stream() -> None:
    sent = [bytes([n]) * n for n in range(1, 40)]
    received: list[bytes] = []
    async with opened() as transport:
        delivering = asyncio.create_task(transport.deliver(received.append))
        for message in (*sent, b"end"):
            await transport.send(message)
        with pytest.raises(Unavailable, match="a:1 ended the stream"):
            await delivering
        with pytest.raises(Unavailable, match="a:1 ended the call"):
            await transport.send(b"more")
    assert received == sent


async def test_a_refusal_ends_the_transport_as_the_error_that_the_service_named() -> None:
    async with opened() as transport:
        await transport.send(b"refuse")
        with pytest.raises(Overloaded, match="too many streams"):
            await transport.deliver(lambda message: None)


async def test_what_a_receiver_raises_ends_the_delivery() -> None:
    def receive(message: bytes) -> None:
        raise KeyError(message)

    async with opened() as transport:
        await transport.send(b"frame")
        with pytest.raises(KeyError):
            await transport.deliver(receive)


async def test_a_transport_that_is_closed_says_so_to_whom_it_delivers_and_to_whom_sends() -> None:
    async with opened() as transport:
        delivering = asyncio.create_task(transport.deliver(lambda message: None))
        await transport.send(b"frame")
        transport.close()
        transport.close()
        with pytest.raises(ServingError):
            await delivering
        with pytest.raises(ServingError):
            await transport.send(b"more")


async def test_a_task_that_is_cancelled_while_it_delivers_ends_as_cancelled() -> None:
    async with opened() as transport:
        delivering = asyncio.create_task(transport.deliver(lambda message: None))
        await asyncio.sleep(0)
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
