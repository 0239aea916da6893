"""A service for tests of calls, and connections to it; each of them of either kind."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from services.runtime.connecting import connected_to
from services.runtime.server import MAX_MESSAGE_BYTES, serving
from services.runtime.service_calls import ServiceConnection
from services.wire import connections
from tests.service_process import ROOT

NATIVE = pytest.mark.skipif(not connections.AVAILABLE, reason="connections were not built")
KINDS = ["gRPC", pytest.param("native", marks=NATIVE)]
NAME = "the router at a:1"
SERVICE = "moesaic.test.Service"
ANSWER, SEND_BACK, READ_NOTHING = (f"/{SERVICE}/{m}" for m in ("Answer", "SendBack", "ReadNothing"))
TOO_LARGE = MAX_MESSAGE_BYTES + 1
WATCH = "/grpc.health.v1.Health/Watch"
SERVE = """
import asyncio
from services.runtime.server import serving

async def serve():
    async with serving(
        lambda server: None, listen="127.0.0.1:0", service_names=[], drain_seconds=0
    ) as port:
        print(port, flush=True)
        await asyncio.Event().wait()

asyncio.run(serve())
"""


@asynccontextmanager
async def service_process() -> AsyncIterator[tuple[Process, int]]:
    """A process with a server that has a health service alone, and its port; killed at the end."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert running.stdout is not None
    try:
        yield running, int(await running.stdout.readline())
    finally:
        running.kill()
        await running.communicate()


def choose(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections be of this kind."""
    monkeypatch.setattr(connections, "AVAILABLE", kind == "native")


@asynccontextmanager
async def connected_service(server_kind: str = "gRPC") -> AsyncIterator[ServiceConnection]:
    """A connection to the service, whose server is of this kind."""
    handlers = {
        "Answer": grpc.unary_unary_rpc_method_handler(_answer),
        "SendBack": grpc.stream_stream_rpc_method_handler(_send_back),
        "ReadNothing": grpc.stream_stream_rpc_method_handler(_read_nothing),
    }

    def register(server: grpc.aio.Server) -> None:
        server.add_registered_method_handlers(SERVICE, handlers)

    async with (
        serving(register, listen="127.0.0.1:0", service_names=[SERVICE], drain_seconds=0) as port,
        connected_to(f"127.0.0.1:{port}", NAME, timeout_seconds=10) as connection,
    ):
        yield connection


async def _answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    if request == b"never":
        await asyncio.Event().wait()
    if request == b"refuse":
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "100 % full, ä")
    return request


async def _send_back(
    requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
) -> AsyncIterator[bytes]:
    async for message in requests:
        if message == b"end":
            return
        if message == b"refuse":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another\nmodel")
        if message == b"cancel":
            await context.abort(grpc.StatusCode.CANCELLED, "given up")
        yield bytes(TOO_LARGE) if message == b"too large" else message


async def _read_nothing(
    requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
) -> AsyncIterator[bytes]:
    yield b"begun"
    await asyncio.Event().wait()
