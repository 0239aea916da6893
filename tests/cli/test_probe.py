"""The health probe, asked about real servers."""

import asyncio
import socket
from pathlib import Path

import pytest

from bench.rig.certificates import Certificates
from services.cli.probe import ask, probe
from services.gateway.clients import TokenClients
from services.gateway.tokens import TokenFile, line_of, new_token
from services.runtime.roles import Role
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
    assert "nothing listens on" in capsys.readouterr().err


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        assert await probed(server.sockets[0].getsockname()[1], timeout_seconds=0.1) == 1


@pytest.mark.parametrize(
    "wrong",
    [["nowhere:"], ["http://127.0.0.1:1"], ["a:1", "--timeout=nan"], ["a:1", "--timeout=0"]],
)
def test_what_is_no_address_or_no_time_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        probe(wrong)
    assert ended.value.code == 2
    assert "should be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tls-certificate=one", "--tls-key=one"], "go together, and with --tls-authority"),
        (["--tls-certificate=one", "--tls-authority=one"], "go together"),
        (["--token-file=one"], "others could read the token on its way to"),
    ],
)
def test_nothing_is_shown_without_tls_that_takes_tls(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        probe(["gateway.example.org:50051", *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


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


async def test_a_service_with_tls_is_asked_by_tls(
    certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    files = certificates.of(Role.ROUTER)
    flags = [
        f"--tls-certificate={files.certificate}",
        f"--tls-key={files.key}",
        f"--tls-authority={files.authority}",
        f"--server-name={Role.ROUTER.server_name}",
    ]
    async with serving(
        lambda server: None, listen="127.0.0.1:0", service_names=[], drain_seconds=0, tls=files
    ) as port:
        address = f"127.0.0.1:{port}"
        assert await asyncio.to_thread(probe, [address, *flags]) == 0
        for fewer in ([], flags[2:], flags[:3]):  # by plain text, without a certificate, by host
            assert await asyncio.to_thread(probe, [address, *fewer]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3


async def test_a_gateway_with_tokens_is_asked_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(f"{(token := new_token())}\n")
    (tmp_path / "tokens").write_text(line_of("probe", token, None))
    access = TokenClients(TokenFile(tmp_path / "tokens"))
    async with serving(
        lambda server: None, listen="127.0.0.1:0", service_names=[], drain_seconds=0, access=access
    ) as port:
        told = [f"127.0.0.1:{port}", f"--token-file={tmp_path / 'token'}"]
        assert await asyncio.to_thread(probe, told) == 0
        assert await asyncio.to_thread(probe, told[:1]) == 1
    assert "it refused the call" in capsys.readouterr().err
