"""A cluster on hosts of their own: gateway and router on one, each expert service on another, with
mutual TLS between their addresses.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.hosting.admin import Admin
from bench.hosting.findings import Window
from bench.hosting.streams import Streams, requests_of
from bench.hosting.truth import Faults
from bench.rig.certificates import Certificates
from bench.rig.cluster import until_serving
from moesaic.v1 import router_pb2
from services.cli.child import Child
from services.cli.members import Member
from services.runtime.roles import Role
from tests.chaos.network import LOCALHOST, Host, Network, network, reached

FRONT, NAME = "10.0.0.1", "experts"
GATEWAY_PORT, ROUTER_PORT, EXPERT_PORT, METRICS_PORT = 50051, 50052, 50053, 9090
FLAGS = ("--batch-invariant", "--threads=1", "--drain-seconds=0")
# What a name stands for on the front's host, in a mount namespace of its processes.
WITH_NAMES = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')
NUM_STREAMS, NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 4, 4, 16, 32
START_SECONDS = SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.02
# As Prometheus has `moesaic.router.stragglers`.
STRAGGLERS = re.compile(
    r'^moesaic_router_stragglers\S*\{.*service="(.*):.*"\} (\S+)$', re.MULTILINE
)


@dataclass
class ClusterOnHosts:
    """Gateway and router, asked by clients and an operator of this machine, and expert services."""

    network: Network
    folder: Path
    certificates: Certificates
    services: dict[str, Host] = field(default_factory=dict)  # by address
    children: list[Child] = field(default_factory=list)

    async def start(self, coverage: int, *addresses: str) -> Host:
        """Start everybody; the front's host."""
        front = self.network.add(FRONT)
        for address in addresses:
            self.services[address] = self.network.add(address)
        self._tell_names()
        router = f"{FRONT}:{ROUTER_PORT}"
        gateway = Member.of("gateway", "gateway", f"{FRONT}:{GATEWAY_PORT}", f"--routers={router}")
        experts = f"--experts=dns:///{NAME}:{EXPERT_PORT}"
        routing = Member.of("router", "router", router, experts, f"--coverage={coverage}", *FLAGS)
        names = (*WITH_NAMES, str(self._names))
        async with asyncio.timeout(START_SECONDS):
            await asyncio.gather(
                *map(self._start_service, addresses),
                self._start(front, gateway),
                self._start(front, routing, *names, MOESAIC_METRICS_PORT=str(METRICS_PORT)),
            )
        return front

    def vanish(self, address: str) -> Host:
        """Nothing is heard any more of an expert service's host, which has lost its name, too."""
        host = self.services.pop(address)
        host.cut()
        self._tell_names()
        return host

    def come_back(self, host: Host, address: str) -> None:
        """A host that had vanished is there again, and has another address."""
        self.network.move(host, address)
        host.restore()
        self.services[address] = host
        self._tell_names()

    async def close(self) -> None:
        """End all processes at once."""
        for child in reversed(self.children):
            await child.kill()

    @property
    def _names(self) -> Path:
        return self.folder / "hosts"

    def _tell_names(self) -> None:
        """In place: the file is mounted."""
        lines = (f"{address} {NAME}\n" for address in self.services)
        self._names.write_text("".join(lines), encoding="ascii")

    async def _start_service(self, address: str) -> None:
        member = Member.of(
            *(f"expert-{address}", "expert", f"0.0.0.0:{EXPERT_PORT}"), "--preload=all", *FLAGS
        )
        await self._start(self.services[address], member)

    async def _start(self, host: Host, member: Member, *before: str, **variables: str) -> None:
        command = host.command(*before, *member.command)
        log = self.folder / f"{member.name}.log"
        child = await Child.start(
            replace(member, command=command),
            *(log, {"GRPC_VERBOSITY": "ERROR", **self.certificates.variables, **variables}),
        )
        self.children.append(child)
        await child.until_ready()


@dataclass
class Trial:
    """A cluster on hosts under load, and what it was answered while its network failed."""

    cluster: ClusterOnHosts
    admin: Admin
    streams: Streams
    windows: list[Window] = field(default_factory=list)

    @asynccontextmanager
    async def befalling(self, label: str) -> AsyncIterator[None]:
        """Let it happen within the block; returns once all services are used and requests were
        answered since.
        """
        num_retries, began = await self.admin.num_retries(), time.perf_counter()
        yield
        await self.until_settled()
        await self.streams.until_answered(NUM_STREAMS)
        num_retries = await self.admin.num_retries() - num_retries
        no_faults = Faults((), ())
        self.windows.append(Window(label, began, time.perf_counter(), num_retries, no_faults))

    async def until_settled(self) -> None:
        """Wait until every service is used, and no other is known."""
        await self.until_used(*self.cluster.services)

    async def until_used(self, *addresses: str) -> None:
        """Wait until the router uses the services of these hosts and no others."""
        expected = set(addresses)
        async with asyncio.timeout(SETTLE_SECONDS):
            while await self._used() != expected:  # noqa: ASYNC110 -- a router tells nobody
                await asyncio.sleep(POLL_SECONDS)

    async def layers_held_up(self) -> Counter[str]:
        """How many layers waited for a service at last, by its host's address."""
        found = STRAGGLERS.findall(await self.admin.metrics())
        return Counter({address: round(float(count)) for address, count in found})

    async def _used(self) -> set[str]:
        placement = await self.admin.placement()
        live = router_pb2.SERVICE_STATE_LIVE
        used = (service.address for service in placement.services if service.state == live)
        return {address.rpartition(":")[0] for address in used}


@asynccontextmanager
async def trial(folder: Path, *addresses: str, coverage: int) -> AsyncIterator[Trial]:
    """A cluster that serves, its services at these addresses."""
    certificates = Certificates(folder / "tls")
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(network())
        cluster = ClusterOnHosts(net, folder, certificates)
        stack.push_async_callback(cluster.close)
        front = await cluster.start(coverage, *addresses)
        ports = (GATEWAY_PORT, FRONT), (ROUTER_PORT, FRONT), (METRICS_PORT, LOCALHOST)
        gateway, router, metrics = [
            await stack.enter_async_context(reached(front, port, at)) for port, at in ports
        ]
        client = certificates.of(Role.CLIENT)
        admin = Admin(router, metrics, certificates.of(Role.OPERATOR))
        stack.push_async_callback(admin.close)
        requests = requests_of(NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS)
        streams = Streams(gateway, requests, num_streams=NUM_STREAMS, tls=client)
        stack.push_async_callback(streams.close)
        await until_serving(gateway, client)
        made = Trial(cluster, admin, streams)
        await made.until_settled()
        yield made
