"""`python -m bench.hosting`: what clients notice of services that die, hang and move, and what
coverage costs.
"""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from bench.harness.command import bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.hosting import events
from bench.hosting.addresses import addresses_made_known
from bench.hosting.cluster import HostedCluster, HostingPlan, hosted_cluster
from bench.hosting.findings import Finding, Window, findings_of, gaps_within
from bench.hosting.load import NUM_STREAMS, STOPPED_SECONDS, Load, disturbed, streaming
from bench.hosting.moves import Memory, memory_watched, move_for, move_on
from bench.hosting.routers import routers_dying
from bench.hosting.streams import Streams
from bench.hosting.tables import (
    Cost,
    Latencies,
    add_costs,
    add_disturbances,
    add_latencies,
    add_memory,
)
from bench.hosting.truth import Faults
from bench.rig.kernel import resident_bytes
from bench.rig.transports import VARIABLES, add_transports

# Room for two replicas of each expert when one of four services is gone, and for moves.
MEMORY_EXPERTS = 73
STEADY, MOVING = "nobody moves", "experts move all the time"
NO_FAULTS = Faults((), ())

COMPARED = (
    f"the shipped model, batch-invariant, on four expert services; {NUM_STREAMS} streams of a "
    "client of the gateway, "
    "greedy and seeded, each answer compared with an undisturbed run. A gap is the longest time "
    "between two tokens of "
    "any stream, from the event to when every expert had its replicas again and each stream had "
    "gone on; services die and hang over each transport in turn, everything else is over the last "
    "of them. All processes "
    "share the cores of this machine, so that a service that starts takes time from those that "
    "serve."
)


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    num_rounds: int
    num_segments: int
    segment_seconds: float
    num_moves: int
    num_batches: int


FULL = Effort(num_rounds=5, num_segments=8, segment_seconds=6.0, num_moves=1000, num_batches=7)
QUICK = Effort(num_rounds=1, num_segments=2, segment_seconds=3.0, num_moves=200, num_batches=2)


async def measure(options: Namespace, stages: Stages) -> Report:
    """What clients notice over each transport in turn; then over the last of them latencies and
    memory while experts move, what the second replica costs, and what is noticed of routers and a
    gateway that die.
    """
    effort = QUICK if options.quick else FULL
    if options.only_addresses:
        return await addresses_made_known(options, effort.num_rounds, stages)
    report = Report("hosting", COMPARED)
    if not options.only_routers:
        await _services(report, options, effort, stages)
    plan = HostingPlan(
        2, MEMORY_EXPERTS, num_routers=2, variables=VARIABLES[options.transports[-1]]
    )
    async with AsyncExitStack() as stack:
        with stages.stage("starting a cluster with two routers"):
            cluster = await stack.enter_async_context(hosted_cluster(plan))
        await routers_dying(report, cluster, effort.num_rounds, stages)
    return report


async def _services(report: Report, options: Namespace, effort: Effort, stages: Stages) -> None:
    transport = options.transports[-1]
    async with AsyncExitStack() as stack:
        covered = {}
        for name in options.transports:
            with stages.stage(f"starting a cluster with coverage 2, {name}"):
                plan = HostingPlan(2, MEMORY_EXPERTS, variables=VARIABLES[name])
                covered[name] = await stack.enter_async_context(hosted_cluster(plan))
        await _dying(report, covered, effort, stages)
        await _with_replicas(report, covered[transport], effort, stages)
        with stages.stage("starting a cluster with coverage 1"):
            plan = HostingPlan(1, MEMORY_EXPERTS, variables=VARIABLES[transport])
            bare = await stack.enter_async_context(hosted_cluster(plan))
        await _without_replicas(report, bare, effort, stages)
        add_costs(report, await _costs(bare, covered[transport], effort, stages))


async def _dying(
    report: Report, clusters: Mapping[str, HostedCluster], effort: Effort, stages: Stages
) -> None:
    dying = [
        events.undisturbed(STOPPED_SECONDS),
        events.killed("expert-1"),
        events.started("expert-1"),
        events.stopped("expert-2", STOPPED_SECONDS),
    ]
    async with AsyncExitStack() as stack:
        loads = [
            Load(cluster, *await stack.enter_async_context(streaming(cluster)))
            for cluster in clusters.values()
        ]
        found = await disturbed(loads, dying, effort.num_rounds, stages)
    for transport, findings in zip(clusters, found, strict=True):
        add_disturbances(report, f"coverage 2, {transport}", findings)


async def _with_replicas(
    report: Report, cluster: HostedCluster, effort: Effort, stages: Stages
) -> None:
    changing = [
        events.joined("expert-4", "expert-5"),
        events.left("expert-0"),
        events.drained("expert-3"),
    ]
    async with streaming(cluster) as (streams, reference):
        load = Load(cluster, streams, reference)
        latencies, findings = await _moving(load, effort, stages)
        add_latencies(report, latencies)
        add_disturbances(report, "coverage 2, moves", findings)
        add_memory(report, *await _watched(load, effort.num_moves, stages))
        (findings,) = await disturbed([load], changing, 1, stages)
        add_disturbances(report, "coverage 2, services come and go", findings)


async def _without_replicas(
    report: Report, cluster: HostedCluster, effort: Effort, stages: Stages
) -> None:
    rehomed = [events.killed("expert-1"), events.started("expert-1")]
    async with streaming(cluster) as (streams, reference):
        load = Load(cluster, streams, reference)
        (findings,) = await disturbed([load], rehomed, effort.num_rounds, stages)
        add_disturbances(report, "coverage 1", findings)


async def _moving(load: Load, effort: Effort, stages: Stages) -> tuple[Latencies, list[Finding]]:
    """Segments without moves and, in turn, with moves all the time."""
    windows: list[Window] = []

    async def segment(event: str, life: Awaitable[object]) -> None:
        num_retries, began = await load.cluster.admin.num_retries(), time.perf_counter()
        await life
        ended, num_retries = (
            time.perf_counter(),
            await load.cluster.admin.num_retries() - num_retries,
        )
        windows.append(Window(event, began, ended, num_retries, NO_FAULTS))

    with stages.stage("steady and moving in turn", effort.num_segments):
        async with load.streams.asking():
            await load.streams.until_answered(NUM_STREAMS)
            for _ in range(effort.num_segments):
                await segment(STEADY, asyncio.sleep(effort.segment_seconds))
                await segment(MOVING, move_for(load.cluster, effort.segment_seconds))
                stages.step()
    answers = load.streams.answers
    gaps = {
        event: [
            gaps_within(answers, window.began, window.ended)
            for window in windows
            if window.event == event
        ]
        for event in (STEADY, MOVING)
    }
    return Latencies(gaps[STEADY], gaps[MOVING]), findings_of(windows, answers, load.reference)


async def _watched(load: Load, num_moves: int, stages: Stages) -> tuple[dict[str, Memory], float]:
    """What each service took while so many experts moved under load, and how many
    seconds that was.
    """
    began, number = time.perf_counter(), 0
    with stages.stage(f"moving {num_moves} experts"):
        async with load.streams.asking(), memory_watched(load.cluster) as memories:
            while sum(memory.num_loaded for memory in memories.values()) < num_moves:
                number += 1
                await move_on(load.cluster, number)
    return memories, time.perf_counter() - began


async def _costs(
    bare: HostedCluster, covered: HostedCluster, effort: Effort, stages: Stages
) -> dict[str, list[Cost]]:
    """The same requests with coverage 1 and 2 in turn, everything spread evenly."""

    async def batch(cluster: HostedCluster, streams: Streams) -> Cost:
        began = time.perf_counter()
        answers = await streams.each_once()
        seconds = time.perf_counter() - began
        hosted = await cluster.hosted()
        return Cost(
            sum(len(answer.token_ids) for answer in answers) / seconds,
            sum(map(len, hosted.values())) * cluster.expert_bytes,
            sum(resident_bytes(cluster.pid(name)) for name in cluster.running),
        )

    with stages.stage("coverage 1 and 2 in turn", effort.num_batches + 1):
        for cluster in (bare, covered):
            await events.spread().act(cluster)
        async with streaming(bare) as (to_bare, _), streaming(covered) as (to_covered, _):
            variants = {
                "1": partial(batch, bare, to_bare),
                "2": partial(batch, covered, to_covered),
            }
            return await interleaved(variants, effort.num_batches, after_round=stages.step)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("hosting", COMPARED, ("--quick --transports native",))
    add_transports(parser)
    parser.add_argument(
        "--only-routers", action="store_true", help="leave out what expert services do"
    )
    parser.add_argument(
        "--only-addresses",
        action="store_true",
        help="measure what addresses cost at which nobody is, and nothing else",
    )
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
