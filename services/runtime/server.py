"""One life for every server, tests included: start, serve, drain, stop."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime.access import Access, RolesAccess
from services.runtime.boundary import ErrorsToStatus
from services.runtime.doorkeeping import Doorkeeper
from services.runtime.signals import ending_signals, may_repeat
from services.runtime.tls_files import TlsFiles
from services.runtime.tls_servers import server_credentials
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

# Frames are split well below this; what is larger is refused by gRPC itself with
# RESOURCE_EXHAUSTED.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server behind it
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Calls that the loop has not taken yet: beyond, gRPC drops some at random as CANCELLED, where
    # ours are refused with a reason.
    ("grpc.server.max_pending_requests", 1 << 16),
    ("grpc.server.max_pending_requests_hard_limit", 1 << 16),
)


class PortInUse(ServingError):
    """The address cannot be listened on."""


class Health:
    """The standard health service: NOT_SERVING until `ready()`, and again from `draining()` on."""

    def __init__(self, service_names: Sequence[str]) -> None:
        self.servicer = health.aio.HealthServicer()
        self._names = ("", *service_names)

    async def ready(self) -> None:
        await self._set(health_pb2.HealthCheckResponse.SERVING)

    async def draining(self) -> None:
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def _set(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in self._names:
            await self.servicer.set(name, status)


@asynccontextmanager
async def serving(
    register: Callable[[grpc.aio.Server], None],
    *,
    listen: str,
    service_names: Sequence[str],
    drain_seconds: float,
    health: Health | None = None,
    native: bool | None = None,
    max_request_bytes: Callable[[], int] = lambda: MAX_MESSAGE_BYTES,
    doorkeeper: Doorkeeper | None = None,
    tls: TlsFiles | None = None,
    access: Access | None = None,
) -> AsyncIterator[int]:
    """Serve on `listen` until the block ends, then let calls in flight finish within
    `drain_seconds`. `native` says whether by the server of our own or by grpc.aio's; by default
    it is our own where that is available. With `tls` calls are let in by the roles of their
    certificates, unless another `access` is to decide.

    A request above `max_request_bytes`, as they are when its connection is made, is refused before
    it is read, with RESOURCE_EXHAUSTED. The `doorkeeper` says which calls may begin.
    Yields the port. Without a `health` of its own the service is healthy as soon as it listens.
    Raises PortInUse when the address cannot be listened on, BadState when certificates cannot be
    used.
    """
    if tls is not None and access is None:
        access = RolesAccess()
    server = _new_server(native, max_request_bytes, tls, access, doorkeeper)
    register(server)
    own_health = health or Health(service_names)
    health_pb2_grpc.add_HealthServicer_to_server(own_health.servicer, server)
    reflection.enable_server_reflection(
        (*service_names, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
    )
    port = _listen(server, listen, tls, access)
    await own_health.draining()
    await server.start()
    if health is None:
        await own_health.ready()
    try:
        yield port
    finally:
        await own_health.draining()
        await server.stop(drain_seconds)


def _new_server(
    native: bool | None,
    max_request_bytes: Callable[[], int],
    tls: TlsFiles | None,
    access: Access | None,
    doorkeeper: Doorkeeper | None,
) -> grpc.aio.Server:
    # Not above: what the environment says of compiled modules is read when they are imported, and
    # has to be checked by then.
    from services.runtime import native_server, tls_contexts

    is_available = native_server.AVAILABLE and (tls is None or tls_contexts.AVAILABLE)
    if is_available if native is None else native:
        limits = native_server.Limits(MAX_MESSAGE_BYTES)
        return native_server.NativeServer(limits, access, doorkeeper, max_request_bytes)
    options = dict(SERVER_OPTIONS) | {"grpc.max_receive_message_length": max_request_bytes()}
    interceptors = [ErrorsToStatus(access, doorkeeper)]
    return grpc.aio.server(interceptors=interceptors, options=tuple(options.items()))


def _listen(
    server: grpc.aio.Server, listen: str, tls: TlsFiles | None, access: Access | None
) -> int:
    credentials = None
    if tls is not None:
        assert access is not None, "with TLS there always is one"
        credentials = _credentials(server, tls, access.needs_certificate)
    try:
        port: int = (
            server.add_insecure_port(listen)
            if credentials is None
            else server.add_secure_port(listen, credentials)
        )
    except RuntimeError as error:
        raise PortInUse(
            f"cannot listen on {listen}: the port is in use or the address is not this machine's"
        ) from error
    return port


def _credentials(server: grpc.aio.Server, tls: TlsFiles, needs_certificate: bool) -> Any:
    from services.runtime.native_server import NativeServer
    from services.runtime.tls_contexts import ServerTls

    if isinstance(server, NativeServer):
        return ServerTls(tls, needs_certificate=needs_certificate)
    return server_credentials(tls, needs_certificate=needs_certificate)


async def until_told_to_stop(again: Callable[[], object] | None = None) -> None:
    """Return at the first signal that asks the process to end, SIGINT, SIGTERM or SIGHUP.

    A second SIGINT or SIGTERM calls `again`; without it, it ends the process at once.
    """
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    numbers = ending_signals()
    for number in numbers:
        loop.add_signal_handler(number, signalled.set)
    await signalled.wait()
    logger.info("told to stop, draining")
    for number in numbers:
        if may_repeat(number):
            continue  # its handler stays, and does nothing more
        loop.remove_signal_handler(number)
        if again is None:
            signal.signal(number, signal.SIG_DFL)
        else:
            loop.add_signal_handler(number, again)
