"""A load on a cluster, what it is answered while nothing happens, and rounds of disturbances."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.harness.progress import Stages
from bench.hosting.cluster import HostedCluster
from bench.hosting.events import Event, befall
from bench.hosting.findings import Finding, Window, findings_of
from bench.hosting.streams import Answer, Streams, requests_of

NUM_STREAMS = 8
NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 16, 32, 64
STOPPED_SECONDS = 5.0


@dataclass(frozen=True)
class Load:
    """Streams to a cluster, and what they are answered as long as nothing happens."""

    cluster: HostedCluster
    streams: Streams
    reference: Sequence[Answer]


@asynccontextmanager
async def streaming(
    cluster: HostedCluster, *, resumes: bool = False
) -> AsyncIterator[tuple[Streams, list[Answer]]]:
    """Streams to the cluster, and what they are answered as long as nothing happens."""
    requests = requests_of(NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS)
    address = cluster.gateway.address
    streams = Streams(address, requests, num_streams=NUM_STREAMS, resumes=resumes)
    try:
        await streams.each_once()  # a cluster that was just started is slower
        yield streams, await streams.each_once()
    finally:
        await streams.close()


async def disturbed(
    loads: Sequence[Load], disturbances: Sequence[Event], num_rounds: int, stages: Stages
) -> list[list[Finding]]:
    """Rounds of disturbances on one cluster after the other; what was found on each."""
    coverage = loads[0].cluster.plan.coverage
    windows: list[list[Window]] = [[] for _ in loads]
    num_steps = num_rounds * len(loads) * len(disturbances)
    with stages.stage(f"coverage {coverage}: services die, hang, come and go", num_steps):
        for _ in range(num_rounds):
            for load, own in zip(loads, windows, strict=True):
                async with load.streams.asking():
                    for event in disturbances:
                        own.append(
                            await befall(
                                load.cluster, load.streams, event, calm_answers=NUM_STREAMS
                            )
                        )
                        stages.step()
    return [
        findings_of(own, load.streams.answers, load.reference)
        for load, own in zip(loads, windows, strict=True)
    ]
