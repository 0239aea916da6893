"""What commands say where nobody is reached."""

import socket
from collections.abc import Callable, Sequence

import grpc
import pytest

from services.cli.failed_calls import next_step, unreachable, words_of
from services.cli.hosting.settings import AddSettings, ShowSettings
from services.cli.main import main
from services.cli.running import RunningCluster, RunningService
from services.cli.settings import GenerateSettings
from services.cli.trace.settings import TraceSettings
from services.cli.unreachable import why_unreachable

CALLS: list[Callable[[str], Sequence[str]]] = [
    lambda address: ["generate", "--address", address, "Once upon a time"],
    lambda address: ["bench", "--gateway", address],
    lambda address: ["bench", "--http", f"http://{address}"],
    lambda address: ["placement", "show", "--router", address],
    lambda address: ["experts", "list", "--router", address],
    lambda address: ["rebalance", "--router", address],
    lambda address: ["trace", "--from", address],
    lambda address: ["trace", "--from", f"http://{address}"],
    lambda address: ["probe", address],
]
NAMES = [" ".join(call("host:port")) for call in CALLS]


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_every_command_says_that_nothing_listens_there_and_what_to_do(
    call: Callable[[str], Sequence[str]],
    unused_tcp_port: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    command = call(address)
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f": nothing listens on {address}" in said
    assert said.count("\n") == 1
    assert command[0] == "probe" or ". Start a cluster: moesaic serve" in said


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_every_command_says_that_there_is_no_such_host(
    call: Callable[[str], Sequence[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # DNS itself is the one thing a test cannot have of its own.
    monkeypatch.setattr(socket, "getaddrinfo", fails_to_look_up)
    assert main(call("none.invalid:1")) == 1
    assert "there is no host 'none.invalid'" in capsys.readouterr().err


def fails_to_look_up(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_what_the_library_says_comes_with_verbose(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    assert main(["generate", "--verbose", "--address", address, "Once"]) == 1
    said = capsys.readouterr().err
    assert f"nothing listens on {address}. Start a cluster" in said
    assert "(UNAVAILABLE: " in said


async def test_who_listens_and_speaks_otherwise_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        said = await unreachable("gateway", place, "no", verbose=True)
        assert said.startswith(f"somebody listens on {place}, and not as this command calls it")
        assert said.endswith(" (no)")
        failed = grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(),
            "the router is not ready: it loads",
        )
        words = await words_of(failed, "router", place)
        assert words == f"UNAVAILABLE: the router is not ready: it loads (router {place})"


def test_the_next_step_is_that_of_the_machine_and_of_what_runs_there() -> None:
    gateway = RunningService("gateway", "gateway", "127.0.0.1:50061", 1, 1)
    cluster = RunningCluster((gateway,))
    here = "127.0.0.1:50051"
    assert next_step("gateway", here, None) == "Start a cluster: moesaic serve"
    assert next_step("gateway", here, cluster).endswith("has its gateway at 127.0.0.1:50061")
    assert next_step("gateway", gateway.address, cluster).endswith("moesaic status")
    assert next_step("tracing", here, cluster).endswith("moesaic serve --tracing")
    assert "Is the service up" in next_step("gateway", "elsewhere:1", cluster)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError("timed out"), "h:1 does not answer"),
        (OSError(113, "No route to host"), "h:1 cannot be reached: no route to host"),
        (EOFError("it hung up"), "h:1: it hung up"),
    ],
)
def test_other_reasons_are_said_too(error: Exception, said: str) -> None:
    assert why_unreachable("h:1", error) == said


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_host_alone_has_the_port_that_is_usual_for_what_is_asked(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(place: tuple[str, int], seconds: float) -> socket.socket:
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    assert main(["probe", host]) == 1
    assert f"nothing listens on {host}:50051" in capsys.readouterr().err
    assert GenerateSettings(prompt="Once", address=host).address == f"{host}:50051"
    assert GenerateSettings(prompt="Once", address=f"dns:///{host}").address == (
        f"dns:///{host}:50051"
    )
    assert ShowSettings(router=host).router == f"{host}:50052"
    assert AddSettings(addresses=[host, f"{host}:7"]).addresses == [f"{host}:50053", f"{host}:7"]
    assert TraceSettings(source=host).source == f"http://{host}:16686"
