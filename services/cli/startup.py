"""Waits until the members of a cluster serve, and says in a line what each of them holds."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moesaic.v1 import (
    expert_pb2,
    expert_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
)
from services.cli.report import Report
from services.cli.startup_view import Row, shown_rows
from services.cli.supervisor import Supervisor
from services.router.start_phase import NOT_READY
from services.runtime.channels import open_channel
from services.wire.errors import from_rpc

DESCRIBE_SECONDS = 10.0
# Between two questions to a router what it does.
ASK_SECONDS = 0.5


class Startup:
    """The way from started processes to a serving cluster, shown as it goes.

    It may take as long as the checkpoint takes to load: a member that fails ends it from outside.
    Experts are to be on `coverage` services each.
    """

    def __init__(
        self, supervisors: Sequence[Supervisor], report: Report, *, coverage: int = 1
    ) -> None:
        self._experts = [one for one in supervisors if one.member.service == "expert"]
        self._routers = [one for one in supervisors if one.member.service == "router"]
        (self._gateway,) = (one for one in supervisors if one.member.service == "gateway")
        self._report = report
        self._coverage = coverage
        self._placed: dict[str, int] = {}
        everyone = (*self._experts, *self._routers, self._gateway)
        self._rows = {one.member.name: Row(one.member.name) for one in everyone}

    async def wait(self) -> None:
        """Return once the gateway serves; then every service has had its line."""
        rows = list(self._rows.values())
        async with shown_rows(rows, self._report), asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(self._watch(expert)) for expert in self._experts]
            following += [tasks.create_task(self._follow(router)) for router in self._routers]
            for router in self._routers:
                await self._until_serving(router)
            await self._until_serving(self._gateway)
            for task in following:
                task.cancel()
        for expert in self._experts:
            await self._say(expert, await self._expert_holds(expert))
        for router in self._routers:
            await self._say(router, await self._router_holds(router))
        await self._say(self._gateway, await self._gateway_holds())

    async def _until_serving(self, supervisor: Supervisor) -> None:
        await supervisor.ready.wait()
        # `_follow` may have asked too early.
        async with open_channel(supervisor.member.address, is_apart=True) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while True:
                try:
                    async for response in health.Watch(
                        health_pb2.HealthCheckRequest(), wait_for_ready=True
                    ):
                        if response.status == health_pb2.HealthCheckResponse.SERVING:
                            self._rows[supervisor.member.name].ready()
                            return
                except grpc.aio.AioRpcError:
                    continue  # it crashed and is being started again, which ends the wait for ready

    async def _watch(self, expert: Supervisor) -> None:
        await expert.ready.wait()
        name, num_services = expert.member.name, len(self._experts)
        row = self._rows[name]
        row.is_at("waits for experts")
        async with open_channel(expert.member.address) as channel:
            stub = expert_pb2_grpc.ExpertServiceStub(channel)
            while True:
                try:
                    about = await stub.Describe(
                        expert_pb2.ExpertServiceDescribeRequest(),
                        wait_for_ready=True,
                        timeout=DESCRIBE_SECONDS,
                    )
                    request = expert_pb2.WatchHostingRequest()
                    async for hosting in stub.WatchHosting(request, wait_for_ready=True):
                        self._placed[name] = row.take(
                            about, hosting, coverage=self._coverage, num_services=num_services
                        )
                except grpc.aio.AioRpcError:
                    continue  # as above

    async def _follow(self, router: Supervisor) -> None:
        """Take in what a router says it does, until it is ready."""
        row = self._rows[router.member.name]
        async with open_channel(router.member.address) as channel:
            stub = router_pb2_grpc.RouterServiceStub(channel)
            while not row.is_ready:
                try:
                    request = router_pb2.RouterServiceDescribeRequest()
                    await stub.Describe(request, timeout=DESCRIBE_SECONDS)
                    return
                except grpc.aio.AioRpcError as error:
                    said = error.details() or ""
                if said.startswith(NOT_READY):
                    row.is_at(said.removeprefix(NOT_READY))
                    self._rows[self._gateway.member.name].is_at("waits for the router")
                await asyncio.sleep(ASK_SECONDS)

    async def _say(self, supervisor: Supervisor, holds: str) -> None:
        member = supervisor.member
        self._report.line(
            f"{member.name:<9} {member.address:<21} pid {supervisor.pid or '-':<7} {holds}"
        )

    async def _expert_holds(self, expert: Supervisor) -> str:
        async with _asking(expert) as channel:
            stub = expert_pb2_grpc.ExpertServiceStub(channel)
            about = await stub.Describe(
                expert_pb2.ExpertServiceDescribeRequest(), timeout=DESCRIBE_SECONDS
            )
        total = about.num_experts * len(about.moe_layers)
        taken = about.expert_memory_bytes - about.free_memory_bytes
        placed = self._placed.get(expert.member.name, 0)
        num_services = len(self._experts)
        share = total * min(self._coverage, num_services) // num_services
        # It serves from the first replica on; the second comes right behind.
        more = f" so far, {share} for coverage {self._coverage}" if placed < share else ""
        return f"{placed} of {total} experts{more}, {_mebibytes(taken)} on {about.device}"

    async def _router_holds(self, router: Supervisor) -> str:
        async with _asking(router) as channel:
            stub = router_pb2_grpc.RouterServiceStub(channel)
            about = await stub.Describe(
                router_pb2.RouterServiceDescribeRequest(), timeout=DESCRIBE_SECONDS
            )
        return f"{about.model} ({about.model_type}), {about.kv_tokens} KV tokens"

    async def _gateway_holds(self) -> str:
        async with _asking(self._gateway) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            about = await stub.GetModel(generation_pb2.GetModelRequest(), timeout=DESCRIBE_SECONDS)
        return f"serves {about.model}, context {about.max_context} tokens"


@asynccontextmanager
async def _asking(supervisor: Supervisor) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the member; a call that fails raises the ServingError that it was there."""
    try:
        async with open_channel(supervisor.member.address) as channel:
            yield channel
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
