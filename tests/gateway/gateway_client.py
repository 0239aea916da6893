"""A running gateway for tests: the real one, on port 0, with a client."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moesaic.v1 import generation_pb2 as pb
from moesaic.v1.generation_pb2_grpc import GenerationServiceStub
from services.gateway.app import Gateway, gateway
from services.gateway.settings import GatewaySettings
from services.runtime.channels import open_channel
from services.runtime.roles import Role
from services.runtime.tls_files import Authority, TlsFiles
from tests.certificates import Certificates
from tests.gateway.router_double import RouterDouble, serving_router

ROUTERS_SECONDS = 20.0


class Client:
    """Calls a gateway."""

    def __init__(
        self, channel: grpc.aio.Channel, address: str, running: Gateway | None = None
    ) -> None:
        self.channel = channel
        self.address = address
        self._running = running
        self.stub: Any = GenerationServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)

    def generate(
        self, text: str = "hello", *, timeout: float = 30, metadata: Any = None, **fields: Any
    ) -> Any:
        """Begin a call; `fields` are those of GenerateRequest, and `text` is left out where a
        prompt is among them.
        """
        if not fields.keys() & {"chat", "token_ids"}:
            fields["text"] = text
        return self.stub.Generate(pb.GenerateRequest(**fields), timeout=timeout, metadata=metadata)

    async def complete(
        self, text: str = "hello", **fields: Any
    ) -> tuple[list[pb.Delta], pb.Completion]:
        """Make a call and read all of it: its deltas and its one completion, which comes last."""
        *deltas, last = [event async for event in self.generate(text, **fields)]
        assert all(event.HasField("delta") for event in deltas)
        assert last.HasField("completion")
        return [event.delta for event in deltas], last.completion

    async def refused(self, text: str = "hello", **fields: Any) -> tuple[grpc.StatusCode, str]:
        """Make a call that must fail; its status and message."""
        return await failure_of(self.generate(text, **fields))

    @property
    def http_port(self) -> int:
        """Of the gateway, which runs here and serves HTTP."""
        assert self._running is not None and self._running.http_port is not None
        return self._running.http_port

    async def health(self) -> str:
        """What the standard health service says now."""
        response = await self._health.Check(health_pb2.HealthCheckRequest())
        return _health_name(response)

    async def until_up(self, num_routers: int) -> None:
        """Return when the gateway, which runs here, can use so many routers; it is ready as soon as
        it can use one.
        """
        assert self._running is not None
        async with asyncio.timeout(ROUTERS_SECONDS):
            while self._running.num_routers < num_routers:  # noqa: ASYNC110 -- only the first has an event
                await asyncio.sleep(0.01)

    async def watch_health(self) -> AsyncGenerator[str, None]:
        """What the standard health service says, at each change."""
        async for response in self._health.Watch(health_pb2.HealthCheckRequest()):
            yield _health_name(response)


def _health_name(response: health_pb2.HealthCheckResponse) -> str:
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


@asynccontextmanager
async def running_gateway(
    *doubles: RouterDouble,
    certificates: Certificates | None = None,
    trust: TlsFiles | Authority | None = None,
    **settings: Any,
) -> AsyncIterator[Client]:
    """A gateway in front of `doubles`, ready, and a client for it; with certificates all speak
    TLS, the client with what it trusts.
    """
    tls = None if certificates is None else certificates.of(Role.ROUTER)
    if certificates is not None:
        settings |= certificates.settings_of(Role.GATEWAY)
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(serving_router(double, tls=tls)) for double in doubles
        ]
        async with connected(routers=addresses, trust=trust, **settings) as client:
            yield client


@asynccontextmanager
async def connected(
    *, routers: Sequence[str], trust: TlsFiles | Authority | None = None, **settings: Any
) -> AsyncIterator[Client]:
    """A gateway with these routers' addresses, ready, and a client for it."""
    # All calls are of one host; a test that is about shares says so.
    fields: dict[str, Any] = {"listen": "127.0.0.1:0", "http_listen": ""}
    fields |= {"drain_seconds": 0, "max_client_share": 1}
    fields |= settings
    async with gateway(GatewaySettings(routers=list(routers), **fields)) as running:
        await running.until_ready()
        address = f"127.0.0.1:{running.port}"
        async with open_channel(address, tls=trust) as channel:
            yield Client(channel, address, running)


async def failure_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status and message that a streaming call fails with."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call did not fail")
