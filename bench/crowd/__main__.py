"""`python -m bench.crowd`: what hostile clients and crowds cost a gateway, and those who are served
meanwhile.
"""

import asyncio
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from bench.crowd.bodies import BODIES, NUM_BYTES, long_model
from bench.crowd.hostile import FLOODS
from bench.crowd.rig import Client, WatchedCluster, clients_running, watched_cluster
from bench.crowd.tables import (
    Attack,
    Burst,
    Overload,
    add_attacks,
    add_bodies,
    add_body_figures,
    add_bursts,
    add_figures,
)
from bench.harness.command import bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.rig.processes import cpu_nanos
from bench.rig.simulated import DeviceTime
from services.runtime.embedded_model import EMBEDDED_MODEL

# About what a small accelerator takes for a layer: little of it is the processor's.
DEVICE = DeviceTime(base_nanos=500_000, expert_nanos=20_000, row_nanos=1_000)
MAX_SEQUENCES = 16
PROMPT, NUM_NEW_TOKENS = tuple(range(100, 116)), 16
BURST = 2_000
TIMES_CAPACITY = 10
# Each a client of its own to a gateway without certificates or tokens.
CROWD, OTHERS = [f"127.0.0.{number}" for number in range(2, 6)], ["127.0.0.9"]
REQUESTS = {"prompt": PROMPT, "num_new_tokens": NUM_NEW_TOKENS}

COMPARED = (
    "Gateway and router as operators run them, over SIMULATED devices whose replies are held "
    f"{DEVICE}. The gateway has a core alone; router, devices and clients share another one, the "
    "clients with lower priority. What a client sees is dated by the kernel as it arrives at its "
    "socket. A block of the gateway's loop is how much later than it should a timer rings that "
    "rings every 2 ms."
)


async def measure(options: Namespace, stages: Stages) -> Report:
    """Hostile clients of each kind, then bursts, then ten times what can be served."""
    report = Report("crowd", COMPARED)
    num_rounds, seconds = (1, 1.5) if options.quick else (5, 5.0)
    async with (
        watched_cluster(DEVICE, max_sequences=MAX_SEQUENCES, causes=options.causes) as cluster,
        clients_running(2) as (crowd, other),
    ):
        attacks = await _attacks(cluster, crowd, other, num_rounds, seconds, stages)
        bursts = await _bursts(cluster, crowd, other, 2 * num_rounds, stages)
        overloads = await _overloads(cluster, crowd, num_rounds, 2 * seconds, stages)
        report.notes += cluster.causes().splitlines()[:10]
    bodies = await _bodies(options, num_rounds, seconds / 2, stages)
    add_attacks(report, attacks)
    add_bodies(report, bodies)
    add_bursts(report, bursts)
    add_figures(report, attacks, bursts, overloads)
    add_body_figures(report, bodies)
    return report


async def _attacks(
    cluster: WatchedCluster,
    crowd: Client,
    other: Client,
    num_rounds: int,
    seconds: float,
    stages: Stages,
) -> list[Attack]:
    address, max_context = cluster.gateway.address, await cluster.max_context()
    attacks = []
    with stages.stage("hostile clients", len(FLOODS) * num_rounds):
        await other.run("series", address=address, hosts=OTHERS, seconds=1.0, **REQUESTS)
        for _ in range(num_rounds):
            for flood in FLOODS:
                cluster.blocks.clear()
                began = cpu_nanos(cluster.gateway.pid)
                result = await crowd.run(
                    "flood",
                    address=address,
                    hosts=CROWD,
                    kind=flood.name,
                    max_context=max_context,
                    seconds=seconds,
                )
                attacks.append(
                    Attack(
                        flood.name,
                        cluster.blocks.longest_ms(),
                        cluster.peak_mib(),
                        cluster.children_mib(),
                        (cpu_nanos(cluster.gateway.pid) - began) / 1e9 / seconds,
                        result,
                    )
                )
                # It answers still.
                await other.run("series", address=address, hosts=OTHERS, seconds=0.2, **REQUESTS)
                stages.step()
    return attacks


async def _bodies(
    options: Namespace, num_rounds: int, seconds: float, stages: Stages
) -> list[Attack]:
    """Of a gateway that takes bodies of such a size."""
    with tempfile.TemporaryDirectory(prefix="moesaic-crowd-") as folder:
        model, bodies = long_model(EMBEDDED_MODEL, Path(folder)), []
        flags = (f"--max-prompt-bytes={NUM_BYTES}",)
        async with (
            watched_cluster(
                DEVICE,
                max_sequences=MAX_SEQUENCES,
                causes=options.causes,
                model=model,
                flags=flags,
            ) as cluster,
            clients_running(1) as (client,),
        ):
            with stages.stage("bodies over HTTP", len(BODIES) * num_rounds):
                for _ in range(num_rounds):
                    for kind in BODIES:
                        bodies.append(await _attacked(cluster, client, kind, seconds))
                        stages.step()
    return bodies


async def _attacked(cluster: WatchedCluster, client: Client, kind: str, seconds: float) -> Attack:
    cluster.blocks.clear()
    began, at = cpu_nanos(cluster.gateway.pid), time.monotonic()
    result = await client.run("sent", address=cluster.http, kind=kind, seconds=seconds)
    took = time.monotonic() - at
    return Attack(
        *(kind, cluster.blocks.longest_ms(), cluster.peak_mib(), cluster.children_mib()),
        *((cpu_nanos(cluster.gateway.pid) - began) / 1e9 / took, result),
    )


async def _bursts(
    cluster: WatchedCluster, crowd: Client, other: Client, num_rounds: int, stages: Stages
) -> list[Burst]:
    address, bursts = cluster.gateway.address, []
    with stages.stage(f"{BURST:,} calls at once", num_rounds):
        for _ in range(num_rounds):
            cluster.blocks.clear()
            async with asyncio.TaskGroup() as both:
                others = both.create_task(
                    other.run("series", address=address, hosts=OTHERS, seconds=2.0, **REQUESTS)
                )
                await asyncio.sleep(0.3)
                crowded = both.create_task(
                    crowd.run("burst", address=address, hosts=CROWD[:1], count=BURST, **REQUESTS)
                )
            longest = cluster.blocks.longest_ms()
            bursts.append(Burst(crowded.result(), others.result(), longest))
            stages.step()
    return bursts


async def _overloads(
    cluster: WatchedCluster, crowd: Client, num_rounds: int, seconds: float, stages: Stages
) -> list[Overload]:
    address, overloads = cluster.gateway.address, []
    load = {"address": address, "hosts": CROWD, **REQUESTS}
    with stages.stage(f"offered {TIMES_CAPACITY} x what can be served", num_rounds):
        for _ in range(num_rounds):
            served = await crowd.run("closed", num_at_once=MAX_SEQUENCES, seconds=seconds, **load)
            cluster.blocks.clear()
            rate = TIMES_CAPACITY * served["completed_per_second"]
            began = cpu_nanos(cluster.gateway.pid)
            crowded = await crowd.run("offered", requests_per_second=rate, seconds=seconds, **load)
            gateway_share = (cpu_nanos(cluster.gateway.pid) - began) / 1e9 / seconds
            longest = cluster.blocks.longest_ms()
            client_share = crowded["cpu_seconds"] / seconds
            overloads.append(Overload(served, crowded, longest, gateway_share, client_share))
            stages.step()
    return overloads


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("crowd", COMPARED, ("--causes",))
    parser.add_argument(
        "--causes",
        action="store_true",
        help="look where the gateway's loop is while it is blocked; that costs time itself",
    )
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
