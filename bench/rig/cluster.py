"""A whole cluster as `moesaic serve --experts 2` runs it, of one thread each or as it is told, and
what its processes are.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.harness.failure import BenchFailed
from bench.rig.generated import Generated
from bench.rig.processes import START_SECONDS, Server, cpu_nanos, services_running
from services.cli.members import ClusterPlan
from services.runtime.channels import open_channel
from services.runtime.tls_files import TlsFiles

NUM_EXPERT_SERVICES = 2


class Load(Protocol):
    """A client that has prompts continued."""

    async def generate(self, prompts: Sequence[Sequence[int]]) -> Generated: ...


@dataclass(frozen=True)
class Cluster:
    """The processes of a cluster that serves."""

    gateway: Server
    router: Server
    experts: tuple[Server, ...]
    # Where OpenAI's API is served; empty for nowhere.
    http: str = ""

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far, by service."""
        experts = [server.pid for server in self.experts]
        return {
            "gateway": cpu_nanos(self.gateway.pid) / 1e9,
            "router": cpu_nanos(self.router.pid) / 1e9,
            "experts": cpu_nanos(*experts) / 1e9,
        }

    async def generate(self, load: Load, prompts: Sequence[Sequence[int]]) -> Generated:
        """What the load generates, and the CPU time that the services take for it."""
        before = self.cpu_seconds()
        generated = await load.generate(prompts)
        after = self.cpu_seconds()
        generated.cpu_seconds = {service: after[service] - before[service] for service in after}
        return generated


@asynccontextmanager
async def cluster_running(
    model: Path,
    variables: Mapping[str, str] | None = None,
    *,
    threads: int | None = 1,
    tls: TlsFiles | None = None,
    http_listen: str = "",
) -> AsyncIterator[Cluster]:
    """Run the cluster until the block ends, with `variables` besides; yields it once the gateway
    serves, which a client with `tls` is told. Without `threads` they are as many as
    `moesaic serve` chooses; HTTP is served where `http_listen` says.
    """
    plan = ClusterPlan(
        model=model,
        num_experts=NUM_EXPERT_SERVICES,
        threads=threads,
        drain_seconds=1.0,
        http_listen=http_listen,
    )
    members = plan.members()
    async with services_running(members, variables) as servers:
        *experts, router, gateway = servers
        await until_serving(gateway.address, tls)
        yield Cluster(gateway, router, tuple(experts), members[-1].http)


async def until_serving(address: str, tls: TlsFiles | None = None) -> None:
    """Wait until the service there says that it serves; raises BenchFailed when it does not in
    time.
    """
    async with open_channel(address, tls=tls) as channel:
        request = health_pb2.HealthCheckRequest()
        call = health_pb2_grpc.HealthStub(channel).Watch(
            request, wait_for_ready=True, timeout=START_SECONDS
        )
        try:
            async for response in call:
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.aio.AioRpcError as error:
            raise BenchFailed(
                f"the gateway did not serve within {START_SECONDS:g} s: {error.details()}"
            ) from error
    raise BenchFailed("the gateway ended its health watch")
