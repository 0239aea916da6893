"""What carries the streams to one service: connections of their own where both sides can, its gRPC
channel elsewhere.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing

from moesaic.v1 import expert_pb2
from services.router.peers.native_transport import AVAILABLE, NativeTransport
from services.router.peers.patience import PATIENCE, Patience
from services.router.peers.transport import Connect
from services.runtime import tls_contexts
from services.runtime.connected_socket import connected_socket
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)


@asynccontextmanager
async def stream_transports(
    address: str,
    description: expert_pb2.ExpertServiceDescribeResponse,
    num_streams: int,
    over_grpc: Connect,
    patience: Patience = PATIENCE,
    tls: TlsFiles | None = None,
) -> AsyncIterator[Sequence[Connect]]:
    """How to open the transport of each of so many streams to the service at `address`; at the end
    they are closed. A line of the log says what they are made of.

    Where its port for streams cannot be used another line says so, and gRPC carries them.
    """
    port = description.dispatch_port
    with ExitStack() as opened:
        native: list[Connect] = []
        if AVAILABLE and port and (tls is None or tls_contexts.AVAILABLE):
            try:
                secure = None
                if tls is not None:
                    secure = tls_contexts.client_tls(tls, Role.EXPERT.server_name)
                for _ in range(num_streams):
                    native.append(await _native(address, port, patience, opened, secure))
            except ServingError as error:
                native.clear()
                opened.close()
                logger.warning(
                    "expert service %s: gRPC carries its streams, since port %d cannot be used: %s",
                    address,
                    port,
                    error,
                )
        kind = "native" if native else "gRPC"
        logger.info(
            "connected to expert service %s on %s, %s streams", address, description.device, kind
        )
        yield native or [over_grpc] * num_streams


async def _native(
    address: str,
    port: int,
    patience: Patience,
    opened: ExitStack,
    secure: tls_contexts.ClientTls | None,
) -> Connect:
    connected = await connected_socket(address, port, timeout_seconds=patience.connect_seconds)
    authority = f"{address.rpartition(':')[0]}:{port}"
    transport = NativeTransport(connected, authority, f"expert service {address}", secure)
    opened.enter_context(closing(transport))
    await transport.begun(patience.answer_seconds)
    return lambda: transport
