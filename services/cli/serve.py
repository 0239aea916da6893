"""`moesaic serve`: a cluster of local processes until it is told to stop."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from services.cli.cluster import LocalCluster, local_cluster
from services.cli.command import run_command
from services.cli.local_tracing import LocalTracing, local_tracing
from services.cli.members import ClusterPlan, check_settings, untaken_address
from services.cli.report import Report
from services.cli.settings import ServeSettings
from services.runtime.invocation import typed
from services.runtime.server import until_told_to_stop
from services.runtime.settings import load

EXAMPLES = (
    "moesaic serve",
    "moesaic serve --experts 4 --coverage 2",
    "moesaic serve --tracing",
    "moesaic serve --model /models/OLMoE-1B-7B-0924 --experts 4",
    "moesaic serve --listen 0.0.0.0:50051 --insecure",
)


def serve(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(ServeSettings, arguments, "moesaic serve", examples=EXAMPLES)
    check_settings()
    return run_command(_serve(settings), command="serve")


async def _serve(settings: ServeSettings) -> None:
    report = Report()
    plan = ClusterPlan.from_settings(
        settings,
        drain_seconds=settings.drain_seconds,
        listen=settings.listen,
        http_listen=settings.http_listen and untaken_address(settings.http_listen, report.line),
        metrics_aliases=settings.metrics_aliases,
        insecure=settings.insecure,
    )
    shown_at, verbose = settings.tracing_http if settings.tracing else None, settings.verbose
    async with local_tracing(
        shown_at,
        report,
        verbose=verbose,
        num_others=plan.num_members,
        insecure=settings.insecure,
    ) as tracing:
        if tracing is not None:
            variables = tracing.variables(every_trace=False)
            plan = replace(
                plan,
                telemetry=variables,
                trace_url=tracing.url,
                trace_detail=settings.trace_detail,
            )
        async with local_cluster(plan, report, verbose=verbose) as cluster:
            await _until_told_to_stop(cluster, tracing, report)
    report.line("stopped")


async def _until_told_to_stop(
    cluster: LocalCluster, tracing: LocalTracing | None, report: Report
) -> None:
    if tracing is not None:
        report.line(typed(f"traces: moesaic trace --from {tracing.url}"))
    report.line(typed(f"experts: moesaic placement show --router {cluster.router}"))
    if cluster.http:
        report.line(f"OpenAI's API: http://{cluster.http}/v1")
    report.line(typed(f'ready: moesaic generate --address {cluster.gateway} "Once upon a time"'))
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    await until_told_to_stop(again=task.cancel)  # not at once: nothing is to be left behind
    report.line("stopping")
