"""The health probe, asked about real servers."""

import asyncio

import pytest

from services.cli.probe import probe
from services.runtime.server import Health, serving

EXPERT = "moesaic.v1.ExpertService"


async def probed(port: int, *, timeout_seconds: float = 3.0) -> int:
    """The exit code."""
    return await asyncio.to_thread(probe, [f"127.0.0.1:{port}", f"--timeout={timeout_seconds}"])


async def test_a_service_is_healthy_from_when_it_is_ready_until_it_drains(capsys: pytest.CaptureFixture[str]):
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


async def test_a_server_without_health_is_not_healthy():
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        assert await probed(server.sockets[0].getsockname()[1]) == 1


async def test_nobody_is_not_healthy(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]):
    assert await probed(unused_tcp_port) == 1
    assert "refused" in capsys.readouterr().err


async def test_a_server_that_says_nothing_is_given_up():
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        assert await probed(server.sockets[0].getsockname()[1], timeout_seconds=0.1) == 1


def test_what_is_no_address_is_refused(capsys: pytest.CaptureFixture[str]):
    assert probe(["nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err
