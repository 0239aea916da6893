"""The native transport speaks to a gRPC server that is no relative of the libraries used here."""

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.router.peers.native_transport import NativeTransport
from services.runtime.connected_socket import connected_socket
from services.wire.errors import Overloaded, ServingError, Unavailable
from tests.router.transports import NAME, NATIVE

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).parent / "interop" / "send_back.cjs"
# Where `npm install --prefix build/interop @grpc/grpc-js` puts them.
MODULES = ROOT / "build" / "interop" / "node_modules"
NODE = shutil.which("node")
SIZES = [0, 1, 16379, 65535, 65536, 1 << 20, 4 << 20]

pytestmark = [
    NATIVE,
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (MODULES / "@grpc" / "grpc-js").is_dir(),
        reason="grpc-js is not there: npm install --prefix build/interop @grpc/grpc-js",
    ),
]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    assert NODE is not None
    environment = {**os.environ, "NODE_PATH": str(MODULES)}
    with subprocess.Popen([NODE, SCRIPT], stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


async def opened(port: int) -> NativeTransport:
    connected = await connected_socket("127.0.0.1:1", port, timeout_seconds=10)
    return NativeTransport(connected, f"127.0.0.1:{port}", NAME)


async def test_messages_of_every_size_come_back_all_at_once(port: int) -> None:
    rng, received = random.Random(0), asyncio.Queue[bytes](len(SIZES))
    transport = await opened(port)
    delivering = asyncio.create_task(transport.deliver(lambda data, _: received.put_nowait(data)))
    sent = [rng.randbytes(size) for size in SIZES]
    for data in sent:
        await transport.send(data)
    assert [await received.get() for _ in sent] == sent
    await transport.send(b"end")
    with pytest.raises(Unavailable, match="a:1 ended the stream"):
        await delivering
    transport.close()


async def test_a_refusal_is_the_error_that_the_service_named(port: int) -> None:
    transport = await opened(port)
    await transport.send(b"refuse")
    with pytest.raises(Overloaded, match="100 % full, ä"):
        await transport.deliver(lambda *_: None)
    transport.close()


async def test_a_stream_that_is_closed_leaves_the_server_to_others(port: int) -> None:
    for _ in range(3):
        transport = await opened(port)
        await transport.send(b"frame")
        transport.close()
        with pytest.raises(ServingError):
            await transport.send(b"more")
    await test_messages_of_every_size_come_back_all_at_once(port)
