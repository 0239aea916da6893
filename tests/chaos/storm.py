"""Runs a cluster of real processes under load and lets events befall it, one after the other."""

from collections.abc import Callable, Sequence

from bench.hosting.cluster import HostingPlan, hosted_cluster
from bench.hosting.events import Event, befall
from bench.hosting.findings import Finding, findings_of
from bench.hosting.streams import Streams, requests_of

# Three services hold two replicas of every expert, and have room to move them.
PLAN = HostingPlan(coverage=2, memory_experts=73, num_routers=2, has_wires=True)
NUM_STREAMS = 6
NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 12, 16, 48


async def run(events: Sequence[Event], *, say: Callable[[str], None]) -> list[Finding]:
    """What became of the requests that met each of the events, compared with a run before the first
    one.

    `say` gets a line before each event. Raises BenchFailed when the cluster does not come to rest
    after one.
    """
    requests = requests_of(NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS)
    say("starting a cluster")
    async with hosted_cluster(PLAN) as cluster:
        streams = Streams(cluster.gateway.address, requests, num_streams=NUM_STREAMS)
        try:
            reference = await streams.each_once()
            windows = []
            async with streams.asking():
                for event in events:
                    say(event.label)
                    windows.append(await befall(cluster, streams, event, calm_answers=NUM_STREAMS))
        finally:
            await streams.close()
    return findings_of(windows, streams.answers, reference)
