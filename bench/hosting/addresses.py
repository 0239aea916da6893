"""What requests notice of addresses that are made known and at which nobody is."""

import asyncio
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.statistics import ratio_of, spread_of
from bench.harness.table import Table
from bench.hosting.cluster import HostedCluster, HostingPlan, hosted_cluster
from bench.hosting.load import NUM_STREAMS, streaming
from bench.hosting.streams import Answer
from bench.rig.transports import VARIABLES

MEMORY_EXPERTS = 160
NUM_ADDRESSES = (254, 2000)
SEGMENT_SECONDS = 2.0
POLL_SECONDS = 0.02

COMPARED = (
    f"the shipped model on two expert services; {NUM_STREAMS} streams of a client of the gateway, "
    "in segments before and after a router is told of addresses of the loopback at which nobody is"
)


@dataclass
class Segments:
    """Moments of time.perf_counter between which things were as the name says, by round."""

    before: list[tuple[float, float]] = field(default_factory=list)
    first: list[tuple[float, float]] = field(default_factory=list)
    later: list[tuple[float, float]] = field(default_factory=list)


async def addresses_made_known(options: Namespace, num_rounds: int, stages: Stages) -> Report:
    """Tokens a second before and after; and how soon a service is found that comes after them."""
    report = Report("hosting", COMPARED)
    plan = HostingPlan(
        1, MEMORY_EXPERTS, num_services=2, variables=VARIABLES[options.transports[-1]]
    )
    async with hosted_cluster(plan) as cluster, streaming(cluster) as (streams, _):
        segments = {count: Segments() for count in NUM_ADDRESSES}
        refused: dict[int, str] = {}
        with stages.stage("addresses at which nobody is", num_rounds * len(NUM_ADDRESSES)):
            async with streams.asking():
                await streams.until_answered(NUM_STREAMS)
                for _ in range(num_rounds):
                    for count, taken in segments.items():
                        refused[count] = await _round(cluster, _dead(count), taken)
                        stages.step()
        with stages.stage("a service after them"):
            seconds = await _found_after(cluster, _dead(NUM_ADDRESSES[0]))
        _add_throughput(report, segments, refused, streams.answers)
    report.notes.append(
        f"a service made known after {NUM_ADDRESSES[0]} such addresses was connected to after "
        f"{seconds:.2f} s"
    )
    return report


async def _round(cluster: HostedCluster, addresses: Sequence[str], taken: Segments) -> str:
    """A segment before, two afterwards; how the router refused the addresses, if it did."""
    taken.before.append(await _segment())
    answer = "taken"
    try:
        await cluster.admin.add(addresses)
    except grpc.aio.AioRpcError as error:
        answer = error.code().name
    taken.first.append(await _segment())
    taken.later.append(await _segment())
    if answer == "taken":
        await cluster.admin.remove(addresses)
    return answer


async def _segment() -> tuple[float, float]:
    began = time.perf_counter()
    await asyncio.sleep(SEGMENT_SECONDS)
    return began, time.perf_counter()


async def _found_after(cluster: HostedCluster, addresses: Sequence[str]) -> float:
    await cluster.start_expert("late")
    late = cluster.experts["late"].address
    await cluster.admin.add([*addresses[1:]])  # one less: there is room for the late one
    began = time.perf_counter()
    await cluster.admin.add([late])
    while not any(  # noqa: ASYNC110 -- the router is asked
        service.address == late and service.is_live
        for service in (await cluster.admin.placement()).services
    ):
        await asyncio.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def _dead(count: int) -> list[str]:
    """Nobody listens there, and the kernel says so at once."""
    return [f"127.1.{number // 250}.{1 + number % 250}:9" for number in range(count)]


def _add_throughput(
    report: Report,
    segments: dict[int, Segments],
    refused: dict[int, str],
    answers: Sequence[Answer],
) -> None:
    ratios = (f"{when} {SEGMENT_SECONDS:g} s ÷ before" for when in ("first", "next"))
    headings = ("addresses", "answered", "tokens/s before", *ratios)
    table = Table("addresses at which nobody is", headings)
    for count, taken in segments.items():
        before, first, later = (
            [_tokens_per_second(answers, *segment) for segment in part]
            for part in (taken.before, taken.first, taken.later)
        )
        table.add(
            *(count, refused[count], spread_of(before)),
            *(ratio_of(first, before), ratio_of(later, before)),
        )
        report.samples[f"{count} addresses"] = {"before": before, "first": first, "later": later}
    report.tables.append(table)


def _tokens_per_second(answers: Sequence[Answer], began: float, ended: float) -> float:
    tokens = 0
    for answer in answers:
        counted = 0
        for arrival, count in zip(answer.arrivals, answer.counts, strict=True):
            if began <= arrival < ended:
                tokens += count - counted
            counted = count
    return tokens / (ended - began)
