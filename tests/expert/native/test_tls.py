"""The native plane with TLS: whom it serves, and what becomes of its certificate and of those who
do not go on.
"""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from bench.rig.certificates import Certificates
from services.expert.app import build
from services.expert.settings import ExpertSettings
from services.router.peers.peer import ExpertPeer
from services.runtime.channels import open_channel
from services.runtime.roles import Role
from services.runtime.tls_contexts import AVAILABLE
from services.runtime.tls_files import TlsFiles
from tests.expert.conftest import has_carrier
from tests.expert.expert_client import EXPERT, Carrier, Stream, expected_rows, expert_service
from tests.expert.native.raw_connection import PREFACE
from tests.router.scripted_service import expected_of

pytestmark = pytest.mark.skipif(
    not (AVAILABLE and has_carrier(Carrier.NATIVE)),
    reason="needs a compiler and OpenSSL",
)
ROWS = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
PAIRS = [(row, expert) for row in range(64) for expert in range(8)]


def settings_of(certificates: Certificates) -> dict[str, Any]:
    """Of an expert service."""
    return dict(certificates.settings_of(Role.EXPERT))


async def test_frames_of_grpcs_own_client_are_answered(
    olmoe: Path, certificates: Certificates
) -> None:
    served = settings_of(certificates)
    router = certificates.of(Role.ROUTER)
    async with expert_service(
        olmoe, Carrier.NATIVE, preload="all", tls=router, **served
    ) as service:
        stream = service.open_stream()
        for number in range(3):  # a reply of many records
            await stream.send(number, ROWS, PAIRS)
        expected = expected_rows(service.parts.checkpoint, 1, ROWS, PAIRS)
        for _ in range(3):
            reply = await stream.reply()
            assert torch.allclose(reply.rows(torch.float32, 32), expected, atol=1e-5)
        assert service.parts.plane.counts().computed_frames == 3


async def test_a_router_has_native_streams_to_it(olmoe: Path, certificates: Certificates) -> None:
    served = settings_of(certificates)
    router = certificates.of(Role.ROUTER)
    changed = asyncio.Event()
    async with expert_service(
        olmoe, Carrier.NATIVE, preload="all", tls=router, **served
    ) as service:
        expected = expected_of(service.parts.checkpoint)
        address = f"127.0.0.1:{service.port}"
        peer = ExpertPeer(address, expected, 2, 5.0, changed.set, tls=router)
        running = asyncio.create_task(peer.run())
        async with asyncio.timeout(10):
            while not peer.is_usable:
                changed.clear()
                await changed.wait()
        assert [stream.transport_kind for stream in peer.streams] == ["native"] * 2
        running.cancel()


@pytest.mark.parametrize("role", [Role.GATEWAY, Role.EXPERT])
async def test_nobody_but_routers_is_served(
    olmoe: Path, certificates: Certificates, role: Role
) -> None:
    served = settings_of(certificates)
    async with expert_service(
        olmoe, Carrier.NATIVE, tls=certificates.of(role), **served
    ) as service:
        call = service.open_stream().call
        assert await call.code() == grpc.StatusCode.PERMISSION_DENIED
        assert await call.details() == f"/moesaic.v1.ExpertService/Dispatch is not for {role}"


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    olmoe: Path, tmp_path: Path
) -> None:
    mine = Certificates(tmp_path)
    old = mine.of(Role.ROUTER)
    async with expert_service(
        olmoe,
        Carrier.NATIVE,
        preload="all",
        tls=old,
        record_seconds=0.01,
        **settings_of(mine),
    ) as service:
        stream = service.open_stream()
        await stream.send(1, ROWS, [(0, 1)])
        await stream.reply()
        others = Certificates(tmp_path / "others")
        replace(mine.of(Role.EXPERT), others.of(Role.EXPERT))
        port = service.parts.plane.port
        async with asyncio.timeout(10):
            while not await is_served(port, others.of(Role.ROUTER)):
                pass
        assert not await is_served(port, old)
        await stream.send(2, ROWS, [(0, 1)])
        await stream.reply()


def replace(former: TlsFiles, new: TlsFiles) -> None:
    for name in ("certificate", "key", "authority"):
        file: Path = getattr(new, name)
        file.replace(getattr(former, name))


async def is_served(port: int, tls: TlsFiles) -> bool:
    async with open_channel(f"127.0.0.1:{port}", tls=tls, server_name=EXPERT) as channel:
        try:
            await Stream(channel).receive()
        except grpc.aio.AioRpcError:
            return False
    return True


@pytest.mark.parametrize("has_tls", [False, True])
async def test_a_peer_that_does_not_go_on_is_given_up(
    olmoe: Path, certificates: Certificates, has_tls: bool
) -> None:
    parts = build(ExpertSettings(model=olmoe))
    tls = certificates.of(Role.EXPERT) if has_tls else None
    async with parts.plane.serving("127.0.0.1:0", 0, tls=tls, silent_seconds=0.1):
        said = (b"", b"\x16\x03\x01" if has_tls else PREFACE[:7])
        readers = []
        for words in said:
            reader, writer = await asyncio.open_connection("127.0.0.1", parts.plane.port)
            writer.write(words)
            readers.append((reader, writer))
        async with asyncio.timeout(10):
            for reader, writer in readers:
                assert (b"" if has_tls else b"\0") in await reader.read()  # to its end
                writer.close()
    parts.close()
