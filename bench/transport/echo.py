"""The bare minimum that grpc.aio can do: a server that returns what it gets, and a client that
waits for it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from services.runtime.channels import open_channel
from services.runtime.server import SERVER_OPTIONS

SERVICE, METHOD = "bench.Echo", "Echo"


@asynccontextmanager
async def echo_server(_: None) -> AsyncIterator[int]:
    """Serve the echo with the options of a real service; yields its port."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    handler = grpc.stream_stream_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
    )
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def _echo(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
    async for message in requests:
        await context.write(message)


class EchoClient:
    """A stream to each of several echo servers, all of them open."""

    def __init__(self, calls: Sequence[Any]) -> None:
        self._calls = calls

    async def exchange(self, messages: Sequence[bytes], num_servers: int) -> None:
        """Send the messages to each of the first servers, and return when all of them are back."""
        calls = self._calls[:num_servers]
        if len(messages) == 1:
            await _write(calls, messages)
            for call in calls:
                await call.read()
        else:
            # An echo whose answers nobody reads stops reading. The tasks cost nothing beside
            # megabytes.
            await asyncio.gather(
                _write(calls, messages), *(_read(call, len(messages)) for call in calls)
            )


async def _write(calls: Sequence[Any], messages: Sequence[bytes]) -> None:
    for message in messages:
        for call in calls:
            await call.write(message)


async def _read(call: Any, count: int) -> None:
    for _ in range(count):
        await call.read()


@asynccontextmanager
async def echoing(addresses: Sequence[str]) -> AsyncIterator[EchoClient]:
    """Streams to the echo servers, with the options of a real channel."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(open_channel(address)) for address in addresses]
        calls = [channel.stream_stream(f"/{SERVICE}/{METHOD}")() for channel in channels]
        try:
            yield EchoClient(calls)
        finally:
            for call in calls:
                call.cancel()
