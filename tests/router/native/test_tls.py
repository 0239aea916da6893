"""The native transport with TLS, to both kinds of servers."""

import asyncio
import random

import pytest

from bench.rig.certificates import Certificates
from services.router.peers.native_transport import NativeTransport
from services.runtime.connected_socket import connected_socket
from services.runtime.roles import Role
from services.runtime.tls_contexts import AVAILABLE, client_tls
from services.wire.errors import PermissionDenied, Unavailable
from tests.router.transports import NAME, NATIVE, sending_back

pytestmark = [
    NATIVE,
    pytest.mark.skipif(not AVAILABLE, reason="TLS of the native wire was not built"),
]
SIZES = [0, 1, 16_379, 65_536, 1 << 20, 4 << 20]


async def opened(port: int, certificates: Certificates, role: Role, host: str) -> NativeTransport:
    connected = await connected_socket("127.0.0.1:1", port, timeout_seconds=10)
    tls = client_tls(certificates.of(role), host)
    return NativeTransport(connected, f"127.0.0.1:{port}", NAME, tls)


@pytest.mark.parametrize("native", [False, True], ids=["grpc", "native"])
async def test_messages_of_every_size_come_back(certificates: Certificates, native: bool) -> None:
    sent = [random.Random(size).randbytes(size) for size in SIZES]
    received: list[bytes] = []
    async with sending_back(certificates.of(Role.EXPERT), native=native) as port:
        transport = await opened(port, certificates, Role.ROUTER, Role.EXPERT.server_name)
        delivering = asyncio.create_task(transport.deliver(lambda data, _: received.append(data)))
        for message in (*sent, b"end"):
            await transport.send(message)
        with pytest.raises(Unavailable, match="a:1 ended the stream"):
            await delivering
        transport.close()
    assert received == sent


@pytest.mark.parametrize(
    ("role", "host", "kind", "why"),
    [
        (Role.ROUTER, Role.ROUTER.server_name, Unavailable, "is refused: hostname mismatch"),
        (Role.GATEWAY, Role.EXPERT.server_name, PermissionDenied, "Dispatch is not for gateway"),
    ],
)
@pytest.mark.parametrize("native", [False, True], ids=["grpc", "native"])
async def test_what_is_refused_says_why(
    certificates: Certificates,
    native: bool,
    role: Role,
    host: str,
    kind: type[Exception],
    why: str,
) -> None:
    async with sending_back(certificates.of(Role.EXPERT), native=native) as port:
        transport = await opened(port, certificates, role, host)
        with pytest.raises(kind, match=why):
            await transport.deliver(lambda data, _: None)


async def test_who_serves_no_tls_is_told_apart(certificates: Certificates) -> None:
    async with sending_back() as port:
        transport = await opened(port, certificates, Role.ROUTER, Role.EXPERT.server_name)
        with pytest.raises(Unavailable, match="the peer does not speak TLS"):
            await transport.begun(10)
