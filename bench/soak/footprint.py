"""What the processes of a cluster hold while nobody asks anything of it."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.hosting.admin import gauge_of
from bench.hosting.cluster import ROUTER, HostedCluster
from bench.rig.kernel import resident_bytes

# Connections and their tasks end a moment after whoever had them.
QUIET_SECONDS = 20.0


@dataclass(frozen=True)
class Held:
    """By one process."""

    pid: int
    resident_bytes: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Footprint:
    """By all of them, and the gauges of what requests hold, by what they count."""

    processes: Mapping[str, Held]
    gauges: Mapping[str, float]


GAUGES = {
    "router: sequences": (ROUTER, "moesaic_router_sequences"),
    "router: free KV tokens": (ROUTER, "moesaic_router_kv_cache_free_tokens"),
    "router: tasks": (ROUTER, "moesaic_loop_tasks"),
    "gateway: tasks": ("gateway", "moesaic_loop_tasks"),
    "gateway: requests waiting": ("gateway", "moesaic_gateway_waiting_requests"),
}


async def footprint(cluster: HostedCluster) -> Footprint:
    """Once the cluster has been quiet for a while."""
    await cluster.until_settled()
    await asyncio.sleep(QUIET_SECONDS)
    names = ("gateway", *cluster.routers, *cluster.running)
    return Footprint(
        {name: _held(cluster.pid(name)) for name in names},
        {
            what: await gauge_of(cluster.metrics[service], gauge)
            for what, (service, gauge) in GAUGES.items()
        },
    )


def _held(pid: int) -> Held:
    process = Path(f"/proc/{pid}")
    return Held(
        pid,
        resident_bytes(pid),
        len(os.listdir(process / "fd")),
        len(os.listdir(process / "task")),
    )
