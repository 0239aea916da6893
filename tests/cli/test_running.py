"""The files by which commands find a cluster, and the commands that show and stop one."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health, health_pb2_grpc

from services.cli.found import with_running_gateway, with_running_router, with_running_tracing
from services.cli.hosting.settings import ShowSettings
from services.cli.life_of_processes import started_at, this_machine
from services.cli.main import main
from services.cli.running import (
    SERVING,
    STARTING,
    RunningCluster,
    RunningService,
    newest_cluster,
    recorded,
    running_clusters,
)
from services.cli.settings import GenerateSettings
from services.cli.trace.settings import TraceSettings
from tests.cli.command_line import scripted

GATEWAY = RunningService("gateway", "gateway", "127.0.0.1:50051", os.getpid(), 1)
ROUTER = RunningService("router", "router", "127.0.0.1:50052", os.getpid(), 1)
CLUSTER = RunningCluster(
    (ROUTER, GATEWAY), state=SERVING, http="127.0.0.1:8000", tracing="http://127.0.0.1:16686"
)


def no_complaint(text: str) -> None:
    raise AssertionError(text)


def leave(cache: Path, cluster: RunningCluster, name: str) -> Path:
    """The file as it is after a process that could not remove it."""
    with recorded(no_complaint) as record:
        record(cluster)
        (file,) = cache.glob("cluster-*.json")
        kept = file.read_text()
    left = cache / f"cluster-{name}.json"
    left.write_text(kept)
    return left


def test_a_cluster_is_found_as_long_as_it_is_recorded(cache: Path) -> None:
    assert running_clusters() == []
    with recorded(no_complaint) as record:
        record(replace(CLUSTER, state=STARTING))
        assert newest_cluster() is None
        record(CLUSTER)
        assert running_clusters() == [CLUSTER] == [newest_cluster()]
        assert (CLUSTER.gateway, CLUSTER.router) == ("127.0.0.1:50051", "127.0.0.1:50052")
        (file,) = cache.iterdir()
        assert [stat.S_IMODE(one.stat().st_mode) for one in (file, cache)] == [0o600, 0o700]
    assert list(cache.iterdir()) == []


def test_the_sessions_folder_comes_before_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded(no_complaint) as record:
        record(CLUSTER)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        with recorded(no_complaint) as record_again:
            record_again(CLUSTER)
            assert len(list((tmp_path / "moesaic").iterdir())) == len(list(cache.iterdir())) == 1
            assert running_clusters() == [CLUSTER, CLUSTER]


@pytest.mark.parametrize(
    "other",
    [{"started": 1}, {"pid": 2**22 + 1}, {"machine": this_machine().split()[0] + " before"}],
    ids=["another process has its number", "its process is gone", "the machine was started anew"],
)
def test_a_cluster_that_has_gone_is_not_found_and_the_next_one_tidies_it(
    cache: Path, other: dict[str, str | int]
) -> None:
    left = leave(cache, replace(CLUSTER, **other), "1")  # type: ignore[arg-type]
    assert running_clusters() == []
    with recorded(no_complaint) as record:
        record(CLUSTER)
        assert not left.exists()
        assert running_clusters() == [CLUSTER]


def test_a_cluster_of_another_machine_is_neither_found_nor_tidied(cache: Path) -> None:
    left = leave(cache, replace(CLUSTER, machine="elsewhere 1 2"), "1")
    assert running_clusters() == []
    with recorded(no_complaint) as record:
        record(CLUSTER)
        assert left.exists()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "[", "[" * 100_000, '{"services": 3}', '{"services": [3]}'),
        *('{"services": [], "pid": "1"}', '{"services": [], "machine": ""}'),
        '{"services": [], "more": 1}',
    ],
)
def test_a_file_of_anything_else_is_passed_over(cache: Path, text: str) -> None:
    cache.mkdir(parents=True)
    (cache / "cluster-1.json").write_text(text)
    assert running_clusters() == []
    with recorded(no_complaint) as record:
        record(CLUSTER)
        assert running_clusters() == [CLUSTER]


def test_a_cluster_that_cannot_be_recorded_says_so_once(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("no folder")
    said: list[str] = []
    with recorded(said.append) as record:
        record(CLUSTER)
        record(CLUSTER)
    (line,) = said
    assert line.startswith("other commands will not find this cluster by themselves: ")


def generating(**said: Any) -> GenerateSettings:
    return GenerateSettings(prompt="Once", **said)


def test_commands_talk_to_the_cluster_that_runs_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_running_gateway(generating()).address is None
    assert with_running_router(ShowSettings()).router == "127.0.0.1:50052"
    services = tuple(
        replace(one, address=f"127.0.0.1:{one.address[-1]}") for one in (ROUTER, GATEWAY)
    )
    with recorded(no_complaint) as record:
        record(replace(CLUSTER, services=services, tracing="http://127.0.0.1:9"))
        found = with_running_gateway(generating(token="secret", verbose=True))
        assert (found.address, found.metadata) == ("127.0.0.1:1", ())
        assert with_running_router(ShowSettings()).router == "127.0.0.1:2"
        assert with_running_tracing(TraceSettings()).source == "http://127.0.0.1:9"
    assert "asking the cluster at 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said", [{"address": "127.0.0.1:7"}, {"experts": 2}, {"tls_authority": Path("a.pem")}]
)
def test_who_names_or_describes_a_cluster_is_given_no_other(said: dict[str, object]) -> None:
    settings = generating(**said)
    with recorded(no_complaint) as record:
        record(CLUSTER)
        assert with_running_gateway(settings) is settings
        of_file = TraceSettings(file=Path("trace.json"))
        assert with_running_tracing(of_file) is of_file
        named = ShowSettings(router="127.0.0.1:7")
        assert with_running_router(named) is named


@pytest.fixture
async def draining(cache: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that stands for a cluster's: it ends at the second SIGTERM."""
    script = (
        "import signal\nprint('began', flush=True)\n"
        "for _ in range(2):\n    signal.sigwait({signal.SIGTERM})\n"
    )
    blocked = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", blocked + script, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    cluster = replace(CLUSTER, pid=process.pid, started=started_at(process.pid) or 0)
    leave(cache, cluster, str(process.pid))
    yield process
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_stop_waits_for_the_end_and_says_where_it_has_not_come(
    draining: asyncio.subprocess.Process, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(main, ["stop", "--timeout", "0.01"]) == 1
    said = capsys.readouterr().err
    assert f"still drains; to end it now: moesaic stop --pid {draining.pid}" in said
    again = ["stop", "--pid", str(draining.pid)]
    ended = await asyncio.gather(asyncio.to_thread(main, again), draining.wait())
    assert tuple(ended) == (0, 0)
    assert capsys.readouterr().err == f"stopped the cluster of pid {draining.pid}\n"
    assert main(again) == 1
    assert f"no cluster of pid {draining.pid} runs here" in capsys.readouterr().err


async def test_status_says_how_each_service_is(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    here = started_at(os.getpid()) or 0
    async with scripted(
        health_pb2_grpc.add_HealthServicer_to_server, health.aio.HealthServicer()
    ) as address:
        services = (
            RunningService("gateway", "gateway", address, os.getpid(), here),
            RunningService("router", "router", f"127.0.0.1:{unused_tcp_port}", os.getpid(), here),
            RunningService("expert-0", "expert", address, os.getpid(), here + 1),
            RunningService("expert-1", "expert", address, 0, 0),
        )
        with recorded(no_complaint) as record:
            record(replace(CLUSTER, services=services))
            assert await asyncio.to_thread(main, ["status", "--json"]) == 0
            (shown,) = json.loads(capsys.readouterr().out)
            assert await asyncio.to_thread(main, ["status"]) == 0
    states = {one["name"]: one["state"] for one in shown["services"]}
    assert states == {
        "gateway": "serving",
        "router": "starting",
        "expert-0": "ended",
        "expert-1": "starting",
    }
    table = capsys.readouterr().out
    assert "http://127.0.0.1:16686" in table and "http://127.0.0.1:8000/v1" in table
    assert max(map(len, table.splitlines())) <= 80
    assert main(["status"]) == 1
    assert "no cluster runs here; start one: moesaic serve" in capsys.readouterr().out
