"""`moesaic serve`: a cluster of local processes until it is told to stop."""

from collections.abc import Sequence

from services.cli.cluster import local_cluster
from services.cli.command import run_command
from services.cli.members import ClusterPlan
from services.cli.report import Report
from services.cli.settings import ServeSettings
from services.runtime.server import until_told_to_stop
from services.runtime.settings import load

EXAMPLES = (
    "moesaic serve",
    "moesaic serve --experts 4 --coverage 2",
    "moesaic serve --model /models/OLMoE-1B-7B-0924 --experts 4 --listen 0.0.0.0:50051",
)


def serve(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(ServeSettings, arguments, "moesaic serve", examples=EXAMPLES)
    return run_command(_serve(settings), command="serve")


async def _serve(settings: ServeSettings) -> None:
    report = Report()
    plan = ClusterPlan.of(settings, drain_seconds=settings.drain_seconds, listen=settings.listen)
    async with local_cluster(plan, report, verbose=settings.verbose) as cluster:
        report.line(f"experts: moesaic placement show --router {cluster.router}")
        report.line(f'ready: moesaic generate --address {cluster.gateway} "Once upon a time"')
        await until_told_to_stop()
        report.line("stopping")
    report.line("stopped")
