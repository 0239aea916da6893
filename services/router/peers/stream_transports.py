"""What carries the streams to one service: connections of their own where both sides can, its gRPC
channel elsewhere.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass

from moesaic.v1 import expert_pb2
from services.router.peers.connected_socket import connected_socket
from services.router.peers.native_transport import AVAILABLE, NativeTransport
from services.router.peers.transport import Connect
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

# A firewall may leave a service's port for streams without a word, and whatever else stands there
# may never answer.
CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 3.0


@dataclass(frozen=True)
class StreamTransports:
    """How to open the transport of each stream, and what it is made of, in a word."""

    kind: str
    connects: Sequence[Connect]


@asynccontextmanager
async def stream_transports(
    address: str,
    description: expert_pb2.ExpertServiceDescribeResponse,
    num_streams: int,
    over_grpc: Connect,
) -> AsyncIterator[StreamTransports]:
    """Those for so many streams to the service at `address`; at the end they are closed.

    Where its port for streams cannot be used a line says so, and gRPC carries them.
    """
    port = description.dispatch_port
    with ExitStack() as opened:
        native: list[NativeTransport] = []
        if AVAILABLE and port:
            try:
                native = [await _native(address, port, opened) for _ in range(num_streams)]
            except ServingError as error:
                opened.close()
                logger.warning(
                    "expert service %s: gRPC carries its streams, since port %d cannot be used: %s",
                    address,
                    port,
                    error,
                )
        if native:
            yield StreamTransports("native", [_opened(transport) for transport in native])
        else:
            yield StreamTransports("gRPC", [over_grpc] * num_streams)


async def _native(address: str, port: int, opened: ExitStack) -> NativeTransport:
    connected = await connected_socket(address, port, timeout_seconds=CONNECT_SECONDS)
    authority = f"{address.rpartition(':')[0]}:{port}"
    transport = NativeTransport(connected, authority, f"expert service {address}")
    opened.enter_context(closing(transport))
    await transport.begun(ANSWER_SECONDS)
    return transport


def _opened(transport: NativeTransport) -> Callable[[], NativeTransport]:
    return lambda: transport
