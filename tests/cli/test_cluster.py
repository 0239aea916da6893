"""The commands with a cluster of real processes and the embedded model."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.cli.command_line import start

SERVICES = ("gateway", "router", "expert-0", "expert-1")
NUM_PROCESSES = len(SERVICES) + 1  # with the tracing service


@dataclass
class Serving:
    """A running `moesaic serve`, and the lines it said before it was ready."""

    process: asyncio.subprocess.Process
    lines: list[str]

    @property
    def address(self) -> str:
        (line,) = (line for line in self.lines if line.startswith("gateway   "))
        return line.split()[1]

    @property
    def openai_url(self) -> str:
        (line,) = (line for line in self.lines if line.startswith("OpenAI's API: "))
        return line.split()[-1]

    def pid(self, name: str) -> int:
        (line,) = (line for line in self.lines if line.startswith(name))
        match = re.search(r"pid (\d+)", line)
        assert match is not None
        return int(match[1])

    async def until(self, text: str) -> None:
        """Read on until a line has `text`; fails when the process ends before."""
        assert self.process.stderr is not None
        while text not in (line := (await self.process.stderr.readline()).decode()):
            assert line, f"ended without saying {text!r}: {self.lines}"
            self.lines.append(line.rstrip())
        self.lines.append(line.rstrip())


async def run(
    *arguments: str, folder: Path, variables: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    process = await start(*arguments, variables={"TMPDIR": str(folder), **(variables or {})})
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    addresses = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    process = await start("serve", *addresses, variables={"TMPDIR": str(tmp_path)})
    serving = Serving(process, [])
    try:
        await serving.until("ready: ")
        yield serving
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until_gone(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def run_folders(folder: Path) -> list[Path]:
    return list((folder / "cache" / "moesaic" / "logs").iterdir())


# What a machine may have set for everybody, and what no proxy, collector or Service may come
# between.
SURROUNDINGS = {
    **{
        name: "http://127.0.0.1:9"
        for proxy in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
        for name in (proxy, proxy.upper())
    },
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_SAMPLER": "always_off",
    "MOESAIC_METRICS_PORT": "tcp://10.0.0.1:9090",
    "MOESAIC_ROUTER_PORT": "tcp://10.0.0.2:50052",
    "MOESAIC_EXPERT_PORT_50053_TCP_ADDR": "10.0.0.3",
}


async def test_generate_starts_a_cluster_streams_says_the_cost_shows_the_trace_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    flags = (
        "--max-new-tokens",
        "8",
        "--temperature",
        "0",
        "--experts",
        "2",
        "--json",
        "--ignore-eos",
        "--tracing",
    )
    code, stdout, stderr = await run(
        *("generate", "Once upon a time", *flags),
        folder=tmp_path,
        # The wire of a native stream is shorter than a character of the waterfall.
        variables={**SURROUNDINGS, "MOESAIC_NATIVE_STREAMS": "off"},
    )
    assert code == 0, stderr
    read = json.loads(stdout)
    assert read["text"]
    assert read["finish_reason"] == "length"
    assert len(read["token_ids"]) == read["usage"]["completion_tokens"] == 8
    parts = read["receipt"]
    # A busy machine loses a few milliseconds between the parts; a part that is missing, far more.
    assert 0 <= parts["unaccounted_nanos"] <= parts["end_to_end_nanos"] / 4
    assert "where the time went" in stderr
    assert "slowest service" in stderr
    assert (
        "traces go to the cluster's own tracing service, not where OTEL_* variables say" in stderr
    )
    assert_shows_the_way_through_every_service(stderr.partition("\ntrace ")[2])
    pids = [int(pid) for pid in re.findall(r"pid (\d+)", stderr)]
    assert len(pids) == NUM_PROCESSES
    assert not any(is_running(pid) for pid in pids)
    assert run_folders(tmp_path) == []


def assert_shows_the_way_through_every_service(trace: str) -> None:
    """A waterfall of 8 steps of 6 layers, with the communication of the slowest one."""
    assert all(f"━ {service} " in trace for service in SERVICES)
    assert len(re.findall(r"^ *router\.step \d tokens?", trace, re.MULTILINE)) == 8
    assert re.search(r"waited for expert-[01], ", trace)
    assert re.search(r"router\.expert → expert-[01] .*░", trace)
    layers = re.findall(r"^ +(\d) +\d.* expert-[01] [1-8] of 8, \S+ ms *$", trace, re.MULTILINE)
    assert layers == ["0", "1", "2", "3", "4", "5"]
    assert re.search(r"critical path: .*wire \d+\.\d%", trace)


async def test_serve_says_what_each_service_holds_brings_a_crashed_one_back_and_stops_cleanly(
    serving: Serving, tmp_path: Path
) -> None:
    holds = [line for line in serving.lines if "pid" in line]
    assert [line.split()[0] for line in holds] == ["expert-0", "expert-1", "router", "gateway"]
    assert all("48 of 96 experts" in line for line in holds[:2])
    async with aiohttp.ClientSession() as session:
        assert (await session.get(f"{serving.openai_url}/models")).status == 200
        metrics = await (await session.get(f"{serving.openai_url}/../metrics")).text()
    assert "\nmoesaic_gateway_routers" in metrics

    os.kill(serving.pid("gateway"), signal.SIGKILL)
    await serving.until("gateway is started again")
    await serving.until("gateway is ready again")
    code, stdout, stderr = await run("generate", "--max-new-tokens=4", "Once", folder=tmp_path)
    assert code == 0, stderr
    assert stdout.strip()
    assert f"asking the cluster at {serving.address}" in stderr

    code, shown, _ = await run("status", "--json", folder=tmp_path)
    (cluster,) = json.loads(shown)
    assert (code, cluster["pid"]) == (0, serving.process.pid)
    states = {one["name"]: (one["address"], one["state"]) for one in cluster["services"]}
    assert states.keys() == set(SERVICES)
    assert states["gateway"] == (serving.address, "serving")
    assert {state for _, state in states.values()} == {"serving"}

    assert await run("stop", folder=tmp_path) == (
        *(0, ""),
        f"stopped the cluster of pid {serving.process.pid}\n",
    )
    _, stderr_of_serve = await serving.process.communicate()
    assert (serving.process.returncode, stderr_of_serve) == (0, b"stopping\nstopped\n")
    assert serving.process.stdout is not None
    assert await serving.process.stdout.read() == b""
    assert run_folders(tmp_path) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
async def test_no_service_outlives_a_command_that_was_killed(serving: Serving) -> None:
    pids = [serving.pid(name) for name in ("expert-0", "expert-1", "router", "gateway")]
    assert all(is_running(pid) for pid in pids)
    gone = [asyncio.ensure_future(until_gone(pid)) for pid in pids]
    await asyncio.sleep(0)  # now each is watched
    serving.process.kill()
    await asyncio.gather(serving.process.communicate(), *gone)


async def test_a_checkpoint_that_is_missing_is_told_in_a_line(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    (tmp_path / "runs").mkdir()
    code, stdout, stderr = await run(
        "generate", "--model", missing, "Once", folder=tmp_path / "runs"
    )
    assert (code, stdout) == (2, "")
    assert stderr == f"moesaic: --model: there is no folder {missing}\n"


async def test_a_port_in_use_is_told_in_a_line(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        code, _, stderr = await run(
            "serve", "--http-listen=off", "--listen", f"127.0.0.1:{port}", folder=tmp_path
        )
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in stderr
    assert "Traceback" not in stderr
