"""One look at a cluster: what each router and a gateway say of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from moesaic.v1 import placement_pb2, router_pb2
from services.cli.hosting.router import ANSWER_SECONDS, RouterFailed, router_at
from services.cli.top.gateway_metrics import GatewayMetrics, gateway_metrics
from services.cli.top.settings import TopSettings
from services.runtime.failures import flatten_group
from services.runtime.tls_files import TlsFiles


@dataclass(frozen=True)
class Look:
    """What was seen at one moment; `activities` by the routers' addresses, `placement` as the first
    of them sees it. `gateway` is None where none says anything.
    """

    activities: Mapping[str, placement_pb2.GetActivityResponse]
    placement: router_pb2.GetPlacementResponse
    gateway: GatewayMetrics | None


@dataclass(frozen=True)
class _Call:
    router: str
    tls: TlsFiles | None
    verbose: bool


async def look(settings: TopSettings) -> Look:
    """Ask everybody at once. Raises RouterFailed where a router does not answer."""
    routers = [settings.router, *settings.other_routers]
    calls = [_Call(one, settings.tls, settings.verbose) for one in routers]
    try:
        async with asyncio.TaskGroup() as asking:
            seen = [asking.create_task(_activity(call)) for call in calls]
            placement = asking.create_task(_placement(calls[0]))
            gateway = asking.create_task(_gateway(settings.http))
    except* RouterFailed as failed:
        raise flatten_group(failed)[0] from None
    activities = {one: task.result() for one, task in zip(routers, seen, strict=True)}
    return Look(activities, placement.result(), gateway.result())


async def _activity(call: _Call) -> placement_pb2.GetActivityResponse:
    async with router_at(call) as stub:
        activity: placement_pb2.GetActivityResponse = await stub.GetActivity(
            placement_pb2.GetActivityRequest(), timeout=ANSWER_SECONDS
        )
    return activity


async def _placement(call: _Call) -> router_pb2.GetPlacementResponse:
    async with router_at(call) as stub:
        placement: router_pb2.GetPlacementResponse = await stub.GetPlacement(
            router_pb2.GetPlacementRequest(), timeout=ANSWER_SECONDS
        )
    return placement


async def _gateway(address: str | None) -> GatewayMetrics | None:
    return await gateway_metrics(address, timeout_seconds=ANSWER_SECONDS) if address else None
