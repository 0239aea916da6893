"""A cluster of real processes which can be killed, stopped and started again, and whose expert
services are added and told what to host.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.harness.failure import BenchFailed
from bench.hosting.admin import Admin, Key
from bench.hosting.wire import Wire
from bench.rig.cluster import until_serving
from services.cli.child import Child
from services.cli.members import Member, free_addresses
from services.model.checkpoint import Checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL

ROUTER = "router"
START_SECONDS = 120.0
STOP_SECONDS = 30.0
SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.05

Target = Mapping[str, Sequence[Key]]
"""Experts by the name of the service that is to host them."""


@dataclass(frozen=True)
class HostingPlan:
    """A cluster of the shipped model: `memory_experts` is what the memory of each service has room
    for.

    With `has_wires` there is a relay in front of every expert service. `variables` stand in the
    environment of all processes. The gateway tells its metrics where `measures_gateway` asks for
    that.
    """

    coverage: int
    memory_experts: int
    num_services: int = 4
    num_routers: int = 1
    has_wires: bool = False
    measures_gateway: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class ExpertMember:
    """One expert service: its process while it runs, and the relay in front of it, if any."""

    member: Member
    wire: Wire | None
    child: Child | None = None

    @property
    def address(self) -> str:
        """Where the router knows it; where it listens itself is in `member`."""
        return self.wire.address if self.wire is not None else self.member.address


class HostedCluster:
    """Gateway, routers and expert services; nobody is started again unless a method here does it.

    The first router, called `router`, is the one that is asked and told things; the others are
    `router-1` and so on.
    """

    def __init__(self, plan: HostingPlan, folder: Path) -> None:
        self.plan = plan
        self.experts: dict[str, ExpertMember] = {}
        self.checkpoint = Checkpoint.open(EMBEDDED_MODEL)
        self.expert_bytes = max(
            self.checkpoint.expert_bytes(layer) for layer in self.checkpoint.moe_layers
        )
        gateway, gateways, self._metrics, *routers = free_addresses(3 + plan.num_routers)
        self.metrics = {"gateway": gateways, ROUTER: self._metrics}  # addresses
        names = (ROUTER, *(f"{ROUTER}-{number}" for number in range(1, plan.num_routers)))
        self.routers = dict(zip(names, routers, strict=True))  # their addresses
        self.gateway = Member.of(
            *("gateway", "gateway", gateway, f"--routers={','.join(routers)}"),
            *("--drain-seconds=0", "--http-listen=off"),
        )
        self.admin = Admin(self.routers[ROUTER], self._metrics)
        self.restart_seconds: list[float] = []  # what those took that were started again
        self._folder = folder
        self._children: dict[str, Child] = {}  # of gateway and routers
        self._ever_started: list[Child] = []

    @property
    def keys(self) -> list[Key]:
        """Every expert of the model."""
        num_experts = self.checkpoint.num_experts
        return [
            (layer, expert) for layer in self.checkpoint.moe_layers for expert in range(num_experts)
        ]

    @property
    def running(self) -> dict[str, ExpertMember]:
        """Expert services whose process runs, stopped ones included, by name."""
        return {
            name: expert
            for name, expert in sorted(self.experts.items())
            if expert.child is not None
        }

    def pid(self, name: str) -> int:
        """The process of any member."""
        return self._child(name).pid

    async def start(self) -> None:
        """Start everybody; returns once requests are served with the coverage asked for."""
        names = [f"expert-{index}" for index in range(self.plan.num_services)]
        async with asyncio.timeout(START_SECONDS):
            await asyncio.gather(*(self.start_expert(name) for name in names))
            await asyncio.gather(self.start_gateway(), *map(self.start_router, self.routers))
            await until_serving(self.gateway.address)
        await self.until_settled()

    async def close(self) -> None:
        """End everybody at once."""
        await self.admin.close()
        for child in reversed(self._ever_started):
            await child.kill()
        for expert in self.experts.values():
            if expert.wire is not None:
                await expert.wire.close()

    async def start_expert(self, name: str) -> None:
        """Start an expert service, a new one or one that has ended; returns when it is ready, and
        hosts nothing.
        """
        if name not in self.experts:
            address, dispatch = free_addresses(2)
            dispatch_port = int(dispatch.rpartition(":")[2])
            memory = f"--expert-memory={self.plan.memory_experts * self.expert_bytes}"
            streams = f"--dispatch-port={dispatch_port}"
            flags = ("--batch-invariant", "--threads=1", "--drain-seconds=5", memory, streams)
            wire = await Wire.start(address, dispatch_port) if self.plan.has_wires else None
            self.experts[name] = ExpertMember(Member.of(name, "expert", address, *flags), wire)
        self.experts[name].child = await self._started(self.experts[name].member)

    async def start_gateway(self) -> None:
        """Start the gateway; returns when it is ready."""
        port = self.metrics["gateway"].rpartition(":")[2]
        variables = {"MOESAIC_METRICS_PORT": port} if self.plan.measures_gateway else {}
        self._children["gateway"] = await self._started(self.gateway, **variables)

    async def make_known(self, *names: str) -> None:
        """Tell every router that runs of expert services."""
        addresses = [self.experts[name].address for name in names]
        for router in self.routers.keys() & self._children.keys():
            admin = self.admin if router == ROUTER else Admin(self.routers[router], "")
            try:
                await admin.add(addresses)
            finally:
                if admin is not self.admin:
                    await admin.close()

    async def start_router(self, name: str = ROUTER) -> None:
        """Start a router with the expert services that run now; returns when it is ready."""
        addresses = ",".join(expert.address for expert in self.running.values())
        flags = (
            "--batch-invariant",
            "--threads=1",
            "--drain-seconds=0",
            f"--coverage={self.plan.coverage}",
        )
        experts = f"--experts={addresses}"
        member = Member.of(name, "router", self.routers[name], experts, *flags)
        port = self._metrics.rpartition(":")[2]
        variables = {"MOESAIC_METRICS_PORT": port} if name == ROUTER else {}
        self._children[name] = await self._started(member, **variables)

    async def kill(self, name: str) -> None:
        """SIGKILL."""
        await self._child(name).kill()
        self._ended(name)

    async def terminate(self, name: str) -> None:
        """SIGTERM, and wait for the end. Raises BenchFailed when it does not come by itself, with
        exit code 0.
        """
        child = self._child(name)
        os.kill(child.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                code = await child.wait()
        except TimeoutError:
            raise BenchFailed(f"{name} did not end within {STOP_SECONDS:g} s of SIGTERM") from None
        finally:
            self._ended(name)
        if code:
            raise BenchFailed(child.obituary(code, "did not end well"))

    def stop(self, name: str) -> None:
        """SIGSTOP."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        os.kill(self.pid(name), signal.SIGCONT)

    async def hosted(self) -> dict[str, set[Key]]:
        """Experts ready on each running service, by its name, as the router sees it."""
        by_address = await self.admin.hosted()
        return {
            name: by_address.get(expert.address, set()) for name, expert in self.running.items()
        }

    def change(self, target: Target) -> grpc.aio.UnaryStreamCall:
        """Begin to host what the target says; the responses tell how far it is."""
        return self.admin.change(
            {self.experts[name].address: keys for name, keys in target.items()}
        )

    async def until_settled(self) -> None:
        """Wait until all running services are live and every expert has its replicas. Raises
        BenchFailed in the end.
        """
        await _until(self._is_settled)

    async def until_hosting(self, *names: str) -> None:
        """Wait until each of these services hosts something. Raises BenchFailed in the end."""

        async def what_lacks() -> str:
            hosted = await self.hosted()
            return ", ".join(f"{name} hosts nothing" for name in names if not hosted[name])

        await _until(what_lacks)

    async def _is_settled(self) -> str:
        placement = await self.admin.placement()
        live = {service.address for service in placement.services if service.is_live}
        lacking = [
            f"{name} is not live"
            for name, expert in self.running.items()
            if expert.address not in live
        ]
        if placement.min_live_replicas < self.plan.coverage:
            lacking.append(f"an expert has {placement.min_live_replicas} live replicas")
        return ", ".join(lacking)

    async def _started(self, member: Member, **variables: str) -> Child:
        log = self._folder / f"{member.name}.log"
        child = await Child.start(
            member, log, {"GRPC_VERBOSITY": "ERROR", **self.plan.variables, **variables}
        )
        self._ever_started.append(child)
        await child.until_ready()
        return child

    def _child(self, name: str) -> Child:
        child = self.experts[name].child if name in self.experts else self._children[name]
        assert child is not None, f"{name} runs"
        return child

    def _ended(self, name: str) -> None:
        if name in self.experts:
            self.experts[name].child = None
        else:
            del self._children[name]


@asynccontextmanager
async def hosted_cluster(plan: HostingPlan) -> AsyncIterator[HostedCluster]:
    """Run a cluster until the block ends; the logs of its processes are kept, and named, when it
    ends with an error.
    """
    folder = Path(tempfile.mkdtemp(prefix="moesaic-hosting-"))
    cluster = HostedCluster(plan, folder)
    try:
        await cluster.start()
        yield cluster
    except Exception as error:
        error.add_note(f"the services' logs are in {folder}")
        raise
    else:
        shutil.rmtree(folder)
    finally:
        await cluster.close()


async def _until(what_lacks: Callable[[], Awaitable[str]]) -> None:
    """Ask the router again and again, until nothing lacks."""
    lacking = "the router does not answer"
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while lacking:
                try:
                    lacking = await what_lacks()
                except grpc.aio.AioRpcError as error:
                    lacking = f"the router does not answer: {error.details()}"
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise BenchFailed(
            f"the placement did not come to rest within {SETTLE_SECONDS:g} s: {lacking}"
        ) from None
