"""TLS of servers and channels: who is let in, by what, and what becomes of files that change."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from bench.rig.certificates import Certificates
from moesaic.v1 import expert_pb2, generation_pb2, placement_pb2, router_pb2
from services.runtime import native_server, tls_contexts
from services.runtime.access import MAY_CALL, may_call
from services.runtime.channels import open_channel
from services.runtime.connecting import connected_to
from services.runtime.roles import Role
from services.runtime.server import serving
from services.runtime.tls_files import TlsFiles, TlsReader
from services.wire.errors import BadState, PermissionDenied, Unavailable

NATIVE = pytest.mark.skipif(
    not (native_server.AVAILABLE and tls_contexts.AVAILABLE),
    reason="TLS of the native wire was not built",
)
DISPATCH = "/moesaic.v1.ExpertService/Dispatch"
DESCRIBE = "/moesaic.v1.ExpertService/Describe"
SECRET = "/moesaic.v1.Secret/Tell"
HEALTH = "/grpc.health.v1.Health/Check"
BEGUN = b"begun"
EXPERT = Role.EXPERT.server_name
FILES = (
    *(expert_pb2, generation_pb2, placement_pb2, router_pb2),
    *(health_pb2, reflection_pb2, metrics_service_pb2, trace_service_pb2),
)


async def _describe(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return b"described"


async def _dispatch(
    requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
) -> AsyncIterator[bytes]:
    yield BEGUN
    async for message in requests:
        yield message


def register(server: grpc.aio.Server) -> None:
    server.add_registered_method_handlers(
        "moesaic.v1.ExpertService",
        {
            "Describe": grpc.unary_unary_rpc_method_handler(_describe),
            "Dispatch": grpc.stream_stream_rpc_method_handler(_dispatch),
        },
    )
    server.add_registered_method_handlers(
        "moesaic.v1.Secret", {"Tell": grpc.unary_unary_rpc_method_handler(_describe)}
    )


@pytest.fixture(params=[False, pytest.param(True, marks=NATIVE)], ids=["grpc", "native"])
def native(request: pytest.FixtureRequest) -> bool:
    """Whose server it is, ours or gRPC's."""
    is_native: bool = request.param
    return is_native


@asynccontextmanager
async def expert_with(tls: TlsFiles, native: bool | None = None) -> AsyncIterator[str]:
    async with serving(
        register, listen="127.0.0.1:0", service_names=[], drain_seconds=0, native=native, tls=tls
    ) as port:
        yield f"127.0.0.1:{port}"


async def status(address: str, method: str, tls: TlsFiles | None, **options: Any) -> str:
    """The status that a call ends with."""
    async with open_channel(address, tls=tls, **{"server_name": EXPERT} | options) as channel:
        try:
            if method == DISPATCH:
                # Nothing is written: a write that fails hides the status in gRPC's client.
                return "OK" if await channel.stream_stream(method)().read() == BEGUN else "?"
            await channel.unary_unary(method)(b"", timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


@pytest.mark.parametrize(
    ("role", "method", "expected"),
    [
        (Role.ROUTER, DESCRIBE, "OK"),
        (Role.ROUTER, DISPATCH, "OK"),
        (Role.GATEWAY, DISPATCH, "PERMISSION_DENIED"),
        (Role.EXPERT, DESCRIBE, "PERMISSION_DENIED"),
        (Role.CLIENT, DESCRIBE, "PERMISSION_DENIED"),
        (Role.OPERATOR, DESCRIBE, "PERMISSION_DENIED"),
        (Role.ROUTER, SECRET, "PERMISSION_DENIED"),
        (Role.CLIENT, HEALTH, "OK"),
    ],
)
async def test_a_method_is_for_the_roles_of_the_table(
    certificates: Certificates, role: Role, method: str, expected: str, native: bool
) -> None:
    async with expert_with(certificates.of(Role.EXPERT), native) as address:
        assert await status(address, method, certificates.of(role)) == expected


async def test_nobody_without_a_certificate_of_the_authority_is_served(
    certificates: Certificates, tmp_path: Path, native: bool
) -> None:
    strangers = Certificates(tmp_path)
    router, stranger = certificates.of(Role.ROUTER), strangers.of(Role.ROUTER)
    pretender = TlsFiles(stranger.certificate, stranger.key, router.authority)
    async with expert_with(certificates.of(Role.EXPERT), native) as address:
        for tls in (None, stranger, pretender):
            assert await status(address, HEALTH, tls) == "UNAVAILABLE"


async def test_a_service_of_another_role_is_not_called(
    certificates: Certificates, native: bool
) -> None:
    router = certificates.of(Role.ROUTER)
    async with expert_with(certificates.of(Role.TRACING), native) as address:
        assert await status(address, DESCRIBE, router) == "UNAVAILABLE"
        assert await status(address, DESCRIBE, router, server_name=None) == "OK"


async def test_a_refusal_is_an_error_of_ours(certificates: Certificates, native: bool) -> None:
    async with (
        expert_with(certificates.of(Role.EXPERT), native) as address,
        connected_to(
            address,
            "it",
            timeout_seconds=5,
            tls=certificates.of(Role.GATEWAY),
            server_name=EXPERT,
        ) as connection,
    ):
        with pytest.raises(PermissionDenied, match=r"Describe is not for gateway"):
            await connection.ask(DESCRIBE, b"", timeout_seconds=5)


async def test_without_tls_a_server_of_tls_is_not_reached(
    certificates: Certificates, native: bool
) -> None:
    async with expert_with(certificates.of(Role.EXPERT), native) as address:
        with pytest.raises(Unavailable):
            async with connected_to(address, "it", timeout_seconds=5) as connection:
                await connection.ask(HEALTH, b"", timeout_seconds=5)


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    tmp_path: Path, native: bool
) -> None:
    mine = Certificates(tmp_path)
    expert, router = mine.of(Role.EXPERT), mine.of(Role.ROUTER)
    async with (
        expert_with(expert, native) as address,
        open_channel(address, tls=router, server_name=EXPERT) as channel,
    ):
        call = channel.stream_stream(DISPATCH)()
        assert await call.read() == BEGUN
        await call.write(b"before")
        assert await call.read() == b"before"
        first = await asyncio.to_thread(shown_by, address, router)
        mine.make([Role.EXPERT])
        assert await asyncio.to_thread(shown_by, address, router) != first
        await call.write(b"after")
        assert await call.read() == b"after"


def shown_by(address: str, tls: TlsFiles) -> str:
    """The certificate that a server shows."""
    host, port = address.split(":")
    context = ssl.create_default_context(cafile=tls.authority)
    context.load_cert_chain(tls.certificate, tls.key)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), 5) as plain,
        context.wrap_socket(plain, server_hostname=EXPERT) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        return ssl.DER_cert_to_PEM_cert(shown)


def test_half_replaced_files_leave_the_former_ones_in_use(tmp_path: Path) -> None:
    mine = Certificates(tmp_path)
    files = mine.of(Role.ROUTER)
    reader = TlsReader(files)
    former = reader.material()
    former_key = files.key.read_bytes()
    mine.make([Role.ROUTER])
    new_key = files.key.read_bytes()
    files.key.write_bytes(former_key)
    assert reader.material() == former
    files.key.write_bytes(new_key)
    assert reader.material() == files.read() != former
    files.certificate.unlink()
    assert reader.material().key == new_key


@pytest.mark.parametrize("broken", ["certificate", "key", "authority"])
def test_files_that_are_none_are_refused(tmp_path: Path, broken: str) -> None:
    files = Certificates(tmp_path).of(Role.ROUTER)
    (tmp_path / "none").write_bytes(b"nothing of the kind")
    for other in (tmp_path / "none", tmp_path / "absent"):
        with pytest.raises(BadState, match="TLS cannot use"):
            replace(files, **{broken: other}).read()


def test_every_method_of_every_service_is_for_somebody() -> None:
    methods = [
        f"/{service.full_name}/{method.name}"
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    assert len(methods) > 15
    assert [method for method in methods if not may_call(method)] == []
    known = {method.rpartition("/")[0] for method in methods}
    assert {path for path in MAY_CALL if path not in known and path not in methods} == set()
