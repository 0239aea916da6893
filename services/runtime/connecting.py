"""Connects to a service in the way that this process has: a connection of ours, or a channel of
gRPC's.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from services.runtime.channels import open_channel
from services.runtime.connected_socket import connected_socket
from services.runtime.grpc_calls import GrpcConnection
from services.runtime.host_port import split_host_port
from services.runtime.native_connection import NativeConnection
from services.runtime.service_calls import ServiceConnection
from services.runtime.tls_contexts import client_tls
from services.runtime.tls_files import TlsFiles
from services.wire import connections
from services.wire import tls as wire_tls


@asynccontextmanager
async def connected_to(
    address: str,
    name: str,
    *,
    timeout_seconds: float,
    tls: TlsFiles | None = None,
    server_name: str | None = None,
) -> AsyncIterator[ServiceConnection]:
    """A connection to the service at `address`, which errors call `name`; at the end it is closed.
    `tls` and `server_name` are as `open_channel` has them.

    Raises Unavailable when nobody answers there in time, where gRPC's channel does not once it is
    asked for something.
    """
    is_native = connections.AVAILABLE and (tls is None or wire_tls.AVAILABLE)
    if not is_native:
        async with open_channel(address, tls=tls, server_name=server_name) as channel:
            yield GrpcConnection(channel, name)
        return
    host, port = split_host_port(address)
    secure = None if tls is None else client_tls(tls, server_name or host)
    connected = await connected_socket(address, port, timeout_seconds=timeout_seconds)
    with closing(NativeConnection(connected, address, name, tls=secure)) as connection:
        yield connection
