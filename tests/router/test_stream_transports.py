"""Streams get connections of their own where the service's port for them answers, and gRPC's
channel wherever it does not.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from services.model.checkpoint import Checkpoint
from services.router.peers.patience import PATIENCE, Patience
from tests.checkpoints import save_tiny
from tests.router.connected_peer import connected_to
from tests.router.scripted_service import ScriptedService, served
from tests.router.transports import NATIVE
from tests.service_process import free_port

pytestmark = NATIVE

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(save_tiny("olmoe", tmp_path_factory.mktemp("olmoe")))


class MisleadingService(ScriptedService):
    """Describes another port for streams than its own."""

    def __init__(self, checkpoint: Checkpoint, dispatch_port: int) -> None:
        super().__init__(checkpoint)
        self._dispatch_port = dispatch_port

    def listens_on(self, port: int) -> None:
        self.description.dispatch_port = self._dispatch_port


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Nothing more."""


async def speak_http_1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await reader.read()


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[int]:
    """A port where each connection is so answered, and closed then."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def streams_of(
    service: ScriptedService,
    checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    patience: Patience = PATIENCE,
) -> list[str]:
    """What was said of a peer's streams until it was usable."""
    caplog.set_level("INFO", "services.router.peers")
    async with (
        served(service) as address,
        connected_to(checkpoint, address, patience=patience) as made,
    ):
        await made.until(lambda: made.peer.is_usable)
        carried_by = made.peer.streams[0].transport_kind
        assert caplog.messages[-1].endswith(f", {carried_by} streams")
    return [message for message in caplog.messages if "streams" in message]


async def test_the_log_says_what_carries_the_streams(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    for has_port, kind in ((False, "gRPC"), (True, "native")):
        service = ScriptedService(checkpoint, has_dispatch_port=has_port)
        (said,) = await streams_of(service, checkpoint, caplog)
        assert said.endswith(f", {kind} streams")
        caplog.clear()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (say_nothing, "did not answer in time"),
        (close_at_once, " broke: "),
        (speak_http_1, "the first frame is not SETTINGS"),
    ],
)
async def test_a_port_for_streams_that_speaks_no_grpc_is_left_for_grpc_with_a_line(
    checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    answer: Answer,
    reason: str,
) -> None:
    async with listening(answer) as port:
        service = MisleadingService(checkpoint, port)
        patience = Patience(answer_seconds=0.05)
        warned, connected = await streams_of(service, checkpoint, caplog, patience)
    assert f"gRPC carries its streams, since port {port} cannot be used" in warned
    assert reason in warned
    assert connected.endswith(", gRPC streams")


@pytest.mark.parametrize("port", [None, 1 << 20, (1 << 32) - 1])
async def test_a_port_for_streams_that_cannot_be_reached_is_left_for_grpc_with_a_line(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, port: int | None
) -> None:
    service = MisleadingService(checkpoint, port or free_port())
    warned, connected = await streams_of(service, checkpoint, caplog)
    assert "cannot connect to port" in warned
    assert connected.endswith(", gRPC streams")


async def test_a_port_that_leaves_connections_unanswered_is_not_waited_for_without_end(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # its queue has room for this one
            service = MisleadingService(checkpoint, port)
            patience = Patience(connect_seconds=0.05)
            warned, _ = await streams_of(service, checkpoint, caplog, patience)
    assert "no answer in time" in warned
