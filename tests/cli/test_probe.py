"""The health probe, asked about real servers."""

import asyncio
import socket

import pytest

from services.cli.probe import ask, probe
from services.runtime.server import Health, serving

EXPERT = "moesaic.v1.ExpertService"


async def probed(port: int, *, timeout_seconds: float = 3.0) -> int:
    """The exit code."""
    return await asyncio.to_thread(probe, [f"127.0.0.1:{port}", f"--timeout={timeout_seconds}"])


async def test_a_service_is_healthy_from_when_it_is_ready_until_it_drains(
    capsys: pytest.CaptureFixture[str],
) -> None:
    health = Health([EXPERT])
    async with serving(
        lambda server: None, listen="127.0.0.1:0", service_names=[], drain_seconds=0, health=health
    ) as port:
        assert await probed(port) == 1
        await health.ready()
        assert await probed(port) == 0
        await health.draining()
        assert await probed(port) == 1
    assert capsys.readouterr().err == f"moesaic probe: 127.0.0.1:{port}: not serving\n" * 2


async def test_a_server_without_health_is_not_healthy() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        assert await probed(server.sockets[0].getsockname()[1]) == 1


async def test_nobody_is_not_healthy(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await probed(unused_tcp_port) == 1
    assert "refused" in capsys.readouterr().err


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        assert await probed(server.sockets[0].getsockname()[1], timeout_seconds=0.1) == 1


@pytest.mark.parametrize(
    "wrong", [["nowhere"], ["http://127.0.0.1:1"], ["a:1", "--timeout=nan"], ["a:1", "--timeout=0"]]
)
def test_what_is_no_address_or_no_time_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        probe(wrong)
    assert ended.value.code == 2
    assert "should be" in capsys.readouterr().err


async def test_a_long_name_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.create_connection
    async with serving(
        lambda server: None, listen="127.0.0.1:0", service_names=[], drain_seconds=0
    ) as port:
        # DNS itself is the one thing a test cannot have of its own.
        monkeypatch.setattr(
            socket, "create_connection", lambda to, seconds: connect(("127.0.0.1", to[1]), seconds)
        )
        assert await asyncio.to_thread(ask, f"{'long.' * 45}name:{port}", 3.0)
