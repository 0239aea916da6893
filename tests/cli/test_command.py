"""How a command begins and ends: variables, signals, and outputs that are gone."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from services.cli.main import COMMANDS, main
from services.cli.report import output

# A life that leaves a folder behind unless it is ended in order, and begins no process.
LIFE = """
import asyncio, sys
from services.cli.command import run_command
from services.cli.log_folder import log_folder
from services.cli.report import Report
from services.runtime.server import until_told_to_stop

async def stay():
    with log_folder(Report(), verbose=False):
        asyncio.get_running_loop().call_soon(lambda: print("began", flush=True))  # once it waits
        await {wait}
        {then}
        print("ended", flush=True)

sys.exit(run_command(stay(), command="serve"))
"""
FOR_EVER = "asyncio.Event().wait()"
UNTIL_TOLD = "until_told_to_stop(again=asyncio.current_task().cancel)"


async def living(
    folder: Path, wait: str, then: str = "pass", *, nohup: bool = False
) -> asyncio.subprocess.Process:
    """The process, once it waits."""
    command = (sys.executable, "-P", "-c", LIFE.format(wait=wait, then=then))
    process = await asyncio.create_subprocess_exec(
        *(("nohup", *command) if nohup else command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"XDG_CACHE_HOME": str(folder)},
    )
    assert process.stdout is not None
    while (line := await process.stdout.readline()) != b"began\n":
        assert line, (await process.communicate())[1]
    return process


def left_in(folder: Path) -> list[str]:
    return os.listdir(folder / "moesaic" / "logs")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_command_that_is_told_to_end_says_which_signal_it_was_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = await living(tmp_path, FOR_EVER)
    process.send_signal(number)
    assert await process.communicate() == (b"", b"")
    assert (process.returncode, left_in(tmp_path)) == (128 + number, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_command_that_drains_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    process = await living(tmp_path, UNTIL_TOLD)
    process.send_signal(number)
    assert await process.communicate() == (b"ended\n", b"")
    assert (process.returncode, left_in(tmp_path)) == (0, [])


async def test_a_second_signal_ends_the_draining_and_leaves_nothing(tmp_path: Path) -> None:
    process = await living(
        tmp_path, UNTIL_TOLD, "print('drains', flush=True); await asyncio.Event().wait()"
    )
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"drains\n"
    process.send_signal(signal.SIGHUP)  # as a closed terminal does; it changes nothing
    process.send_signal(signal.SIGTERM)
    assert await process.communicate() == (b"", b"")
    assert (process.returncode, left_in(tmp_path)) == (143, [])


async def test_a_command_that_ignores_closed_terminals_goes_on(tmp_path: Path) -> None:
    process = await living(tmp_path, UNTIL_TOLD, nohup=True)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    stdout, _ = await process.communicate()
    assert (process.returncode, stdout) == (0, b"ended\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["generate", "Once"],
        ["generate", "Once", "--address", "127.0.0.1:1"],
        ["bench"],
        ["trace"],
        ["placement", "show"],
        ["experts", "list"],
        ["rebalance"],
        ["routing", "record", "traffic.npz"],
    ],
)
def test_a_bad_variable_of_every_process_is_one_line_from_each_command(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOESAIC_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"moesaic {arguments[0]}")
    assert "MOESAIC_LOG_LEVEL: 'loud'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["serve"], ["generate", "Once"], ["bench"]])
def test_a_bad_variable_of_a_service_is_told_before_a_cluster_is_started(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOESAIC_ROUTER_EXPERTS", "http://127.0.0.1:50053")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "moesaic router: --experts (MOESAIC_ROUTER_EXPERTS): 'http://127.0.0.1:50053': "
        "it should be host:port, without http://\n"
    )


@pytest.mark.parametrize("arguments", [["serve"], ["generate", "Once"], ["bench"]])
def test_tls_and_tokens_of_a_service_are_refused_before_a_cluster_is_started(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for what in ("CERTIFICATE", "KEY", "AUTHORITY"):
        monkeypatch.setenv(f"MOESAIC_GATEWAY_TLS_{what}", "some.pem")
    monkeypatch.setenv("MOESAIC_GATEWAY_TOKENS", "tokens")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in said] == [
        "moesaic gateway: MOESAIC_GATEWAY_TLS_CERTIFICATE",
        "moesaic gateway: MOESAIC_GATEWAY_TOKENS",
    ]


ADDRESSED = {
    "serve": ["--listen={}"],
    "chat": ["--address={}"],
    "generate": ["Once", "--address={}"],
    "bench": ["--gateway={}"],
    "top": ["--router={}"],
    "placement": ["show", "--router={}"],
    "experts": ["add", "{}"],
    "rebalance": ["--router={}"],
    "routing": ["record", "traffic.npz", "--router={}"],
    "trace": ["--from=http://{}"],
    "gateway": ["--routers=127.0.0.1:1,{}"],
    "router": ["--experts={},127.0.0.1:1"],
    "expert": ["--listen={}"],
    "tracing": ["--http={}"],
    "probe": ["{}"],
}
# What these commands work with.
FILES_ALONE = {"certificates", "tokens", "status", "stop"}


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:50051", ":50051", "127.0.0.1:70000", "::1:50051", "a b:50051"]
)
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - FILES_ALONE))
def test_every_command_refuses_what_is_no_address_before_anybody_is_asked(
    name: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, *(argument.format(address) for argument in ADDRESSED[name])])
    assert ended.value.code == 2
    assert "host:port" in capsys.readouterr().err


def test_an_interrupt_before_anything_began_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("services.cli.generate.load", interrupted)
    assert main(["generate", "Once"]) == 130


def test_tables_leave_it_to_the_command_that_their_reader_left(
    capfd: pytest.CaptureFixture[str],
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as gone:
        console = output()
        console.file = gone
        with pytest.raises(BrokenPipeError):
            console.print("told")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # what is left to be written goes there
