"""What clients notice of routers and a gateway that die and hang."""

from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.hosting import events
from bench.hosting.cluster import ROUTER, HostedCluster
from bench.hosting.load import STOPPED_SECONDS, Load, disturbed, streaming
from bench.hosting.tables import add_disturbances


async def routers_dying(
    report: Report, cluster: HostedCluster, num_rounds: int, stages: Stages
) -> None:
    """One of two routers dies and hangs; then one is left, and it dies, and the gateway does."""
    one_of_two = [
        events.undisturbed(STOPPED_SECONDS),
        events.killed("router-1"),
        events.router_started("router-1"),
        events.stopped("router-1", STOPPED_SECONDS),
    ]
    async with streaming(cluster) as (streams, reference):
        load = Load(cluster, streams, reference)
        (findings,) = await disturbed([load], one_of_two, num_rounds, stages)
        add_disturbances(report, "one of two routers", findings)
    await cluster.kill("router-1")
    for name in (ROUTER, "gateway"):
        cluster.restart_seconds.clear()
        async with streaming(cluster, resumes=name == "gateway") as (streams, reference):
            load = Load(cluster, streams, reference)
            only = [events.undisturbed(1.0), events.restarted(name)]
            (findings,) = await disturbed([load], only, num_rounds, stages)
        seconds = ", ".join(f"{each:.2f}" for each in cluster.restart_seconds)
        add_disturbances(report, f"the only {name}, which starts in {seconds} s", findings)
