"""`python -m bench.soak`: minutes of load with faults in turn, and what is kept of them."""

import asyncio
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack

from bench.harness.command import bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.hosting import events
from bench.hosting.cluster import HostingPlan, hosted_cluster
from bench.hosting.events import Event, befall
from bench.hosting.findings import Finding, findings_of
from bench.hosting.load import NUM_STREAMS, Load, streaming
from bench.hosting.tables import add_disturbances
from bench.soak.clients import rude_clients
from bench.soak.footprint import footprint
from bench.soak.tables import add_footprints

MINUTES, QUICK_MINUTES = 30.0, 0.5
# Room for two replicas of each expert when one of four services is gone, and for moves.
MEMORY_EXPERTS = 73
PLAN = HostingPlan(2, MEMORY_EXPERTS, num_routers=2, has_wires=True, measures_gateway=True)

COMPARED = (
    f"the shipped model, batch-invariant, on four expert services with coverage 2 and two routers; "
    f"{NUM_STREAMS} streams of a client of the gateway, each answer compared with an undisturbed "
    "run, while services and a router die and hang, connections are cut, experts move, and other "
    "clients cancel or vanish. Memory and all else is looked at without load, after a first round "
    "of these and at the end"
)


def round_of(number: int, *, is_quick: bool) -> Sequence[Event]:
    """The faults, in turn. Those who are killed are always the same: the others live as long as the
    soak.
    """
    quick = (
        events.stopped("expert-2", 1.0),
        events.cut("expert-3", 0.5),
        events.killed("expert-1"),
        events.started("expert-1"),
    )
    if is_quick:
        return quick
    return (
        *quick,
        events.moved(number % 2),
        events.stopped("router-1", 1.0),
        events.killed("router-1"),
        events.router_started("router-1"),
        events.truncated("expert-0", 700, 0.5),
        events.spread(),
    )


async def measure(options: Namespace, stages: Stages) -> Report:
    """Rounds of faults until the time is over, between two looks at what processes hold."""
    report = Report("soak", COMPARED)
    minutes = options.minutes
    if minutes is None:
        minutes = QUICK_MINUTES if options.quick else MINUTES
    async with AsyncExitStack() as stack:
        with stages.stage("starting a cluster"):
            cluster = await stack.enter_async_context(hosted_cluster(PLAN))
            load = Load(cluster, *await stack.enter_async_context(streaming(cluster)))
        with stages.stage("a first round"):
            findings = await _round(report, load, round_of(0, is_quick=options.quick), stages)
        footprints = [await footprint(cluster)]
        ends_at = asyncio.get_running_loop().time() + 60.0 * minutes
        number = 0
        with stages.stage(f"{minutes:g} minutes"):
            while asyncio.get_running_loop().time() < ends_at:
                number += 1
                findings += await _round(
                    report, load, round_of(number, is_quick=options.quick), stages
                )
        with stages.stage("what is left"):
            footprints.append(await footprint(cluster))
    add_disturbances(report, f"{1 + number} rounds of faults", findings)
    add_footprints(report, footprints)
    counts = report.samples["clients"]
    report.notes.append(
        f"{counts['cancelled']} clients cancelled, and {counts['vanished']} vanished"
    )
    return report


async def _round(
    report: Report, load: Load, faults: Sequence[Event], stages: Stages
) -> list[Finding]:
    cluster, streams = load.cluster, load.streams
    windows = []
    async with rude_clients(cluster.gateway.address) as rude, streams.asking():
        for event in faults:
            stages.step()
            windows.append(await befall(cluster, streams, event, calm_answers=NUM_STREAMS))
    counts = report.samples.setdefault("clients", {"cancelled": 0, "vanished": 0})
    counts["cancelled"] += rude.num_cancelled
    counts["vanished"] += rude.num_vanished
    answers, streams.answers = streams.answers, []
    return findings_of(windows, answers, load.reference)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("soak", COMPARED, ("--minutes 5",))
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help=f"how long faults befall the cluster (default: {MINUTES:g}, or {QUICK_MINUTES:g} with "
        "--quick)",
    )
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
