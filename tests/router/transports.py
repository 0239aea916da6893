"""The kinds of transports that streams are carried by, as parameters of tests, and services that
they lead to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from services.router.peers.grpc_transport import GrpcTransport
from services.router.peers.native_transport import AVAILABLE, NativeTransport
from services.router.peers.transport import DISPATCH, Transport
from services.runtime.channels import open_channel
from services.runtime.connected_socket import connected_socket
from services.runtime.server import serving
from services.runtime.tls_files import TlsFiles

NATIVE = pytest.mark.skipif(not AVAILABLE, reason="native streams were not built")
TRANSPORTS = ["gRPC", pytest.param("native", marks=NATIVE)]
NAME = "expert service a:1"
SERVICE, METHOD = DISPATCH.strip("/").split("/")


@asynccontextmanager
async def transport_to(port: int, kind: str) -> AsyncIterator[Transport]:
    """A transport of this kind to a port of this host."""
    address = f"127.0.0.1:{port}"
    async with open_channel(address) as channel:
        transport: Transport
        if kind == "gRPC":
            transport = GrpcTransport(channel, NAME)
        else:
            connected = await connected_socket(address, port, timeout_seconds=10)
            transport = NativeTransport(connected, address, NAME)
        try:
            yield transport
        finally:
            transport.close()


@asynccontextmanager
async def sending_back(
    tls: TlsFiles | None = None, *, native: bool | None = None
) -> AsyncIterator[int]:
    """A service that sends back what it is sent, until it is told to end; yields its port. `tls`
    and `native` are as `serving` has them.
    """
    handlers = {METHOD: grpc.stream_stream_rpc_method_handler(_send_back)}

    def register(server: grpc.aio.Server) -> None:
        server.add_registered_method_handlers(SERVICE, handlers)

    async with serving(
        register,
        listen="127.0.0.1:0",
        service_names=[SERVICE],
        drain_seconds=0,
        native=native,
        tls=tls,
    ) as port:
        yield port


async def _send_back(
    requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
) -> AsyncIterator[bytes]:
    async for message in requests:
        if message == b"end":
            return
        if message == b"refuse":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "100 % full, ä")
        if message == b"cancel":
            await context.abort(grpc.StatusCode.CANCELLED, "given up")
        yield message
