"""The cluster and the clients of this bench, and which core each has."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.crowd.gateway import CAUSES_VARIABLE, FOLDER_VARIABLE
from bench.crowd.probe import LoopBlocks
from bench.harness.failure import BenchFailed
from bench.rig.cluster import until_serving
from bench.rig.kernel import fields_of, keep_on
from bench.rig.processes import Server, forked, services_running
from bench.rig.simulated import DeviceTime, SimulatedExpert, simulated_expert
from moesaic.v1 import generation_pb2, generation_pb2_grpc
from services.cli.members import Member, free_addresses
from services.runtime.channels import open_channel
from services.runtime.embedded_model import EMBEDDED_MODEL

NUM_EXPERT_SERVICES = 2
LOAD_SECONDS = 120.0
MAX_LINE_BYTES = 64 << 20
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class WatchedCluster:
    """A cluster whose gateway is watched."""

    gateway: Server
    blocks: LoopBlocks
    folder: Path
    # Where it serves HTTP.
    http: str

    def peak_mib(self) -> float:
        """Most memory that the gateway's process has had."""
        return _peak_mib(self.gateway.pid)

    def children_mib(self) -> float:
        """What the processes have that it started."""
        threads = Path(f"/proc/{self.gateway.pid}/task").iterdir()
        children = [int(pid) for each in threads for pid in (each / "children").read_text().split()]
        return sum(map(_peak_mib, children))

    async def max_context(self) -> int:
        """As a client is told."""
        async with open_channel(self.gateway.address) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            model = await stub.GetModel(generation_pb2.GetModelRequest())
        return int(model.max_context)

    def causes(self) -> str:
        """Where the loop was found during blocks, where that was looked for."""
        path = self.folder / "causes"
        return path.read_text() if path.exists() else ""


class Client:
    """A process that puts loads on the gateway, one after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, load: str, **values: Any) -> dict[str, Any]:
        """What came of a load. Raises BenchFailed when its process ends, or takes too long."""
        assert self._process.stdin is not None, "it is piped"
        assert self._process.stdout is not None, "it is piped"
        self._process.stdin.write(json.dumps({"load": load, **values}).encode() + b"\n")
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchFailed(f"the load {load} took more than {LOAD_SECONDS:g} s") from None
        if not line:
            raise BenchFailed("a client ended; what it said stands above")
        result: dict[str, Any] = json.loads(line)
        return result


@asynccontextmanager
async def watched_cluster(
    time: DeviceTime,
    *,
    max_sequences: int,
    causes: bool,
    model: Path = EMBEDDED_MODEL,
    flags: Sequence[str] = (),
) -> AsyncIterator[WatchedCluster]:
    """Gateway and router as operators run them, over simulated services. The gateway has the first
    core alone, and all else, this process too, the last. The gateway has the `flags` besides.
    """
    cores = os.sched_getaffinity(0)
    keep_on(max(cores), [os.getpid()], cores)
    try:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moesaic-crowd-")))
            simulated = [SimulatedExpert(model, time)] * NUM_EXPERT_SERVICES
            experts = await stack.enter_async_context(forked(simulated_expert, simulated))
            addresses = [expert.address for expert in experts]
            members = _members(addresses, max_sequences, model, flags)
            variables = {FOLDER_VARIABLE: str(folder)} | ({CAUSES_VARIABLE: "1"} if causes else {})
            running = services_running(members, variables)
            _, gateway = await stack.enter_async_context(running)
            await until_serving(gateway.address)
            keep_on(min(cores), [gateway.pid], cores)
            blocks = LoopBlocks.in_folder(folder)
            yield WatchedCluster(gateway, blocks, folder, members[-1].http)
    finally:
        keep_on(None, [os.getpid()], cores)


@asynccontextmanager
async def clients_running(count: int) -> AsyncIterator[list[Client]]:
    """So many processes of clients, until the block ends."""
    processes = []
    try:
        for _ in range(count):
            processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bench.crowd.client"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=MAX_LINE_BYTES,
                )
            )
        yield [Client(process) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _members(
    experts: Sequence[str], max_sequences: int, model: Path, flags: Sequence[str]
) -> list[Member]:
    router_address, gateway_address, http_address = free_addresses(3)
    shared = ("--drain-seconds=1", f"--model={model}")
    router = Member.of(
        *("router", "router", router_address),
        *(*shared, f"--experts={','.join(experts)}", f"--max-sequences={max_sequences}"),
        # Results are zero, and a service's word is to be taken for it.
        *("--no-rebalance", "--audit-share=0"),
    )
    gateway = Member.of(
        *("gateway", "gateway", gateway_address, *shared, f"--routers={router_address}"),
        *(f"--http-listen={http_address}", *flags),
    )
    command = (sys.executable, "-P", "-m", "bench.crowd.gateway", *gateway.flags)
    return [router, replace(gateway, command=command)]


def _peak_mib(pid: int) -> float:
    """Most memory that a process has had; nothing of one that is gone."""
    try:
        return fields_of(Path(f"/proc/{pid}/status").read_text()).get("VmHWM", 0) / MEBIBYTE
    except OSError:
        return 0.0
