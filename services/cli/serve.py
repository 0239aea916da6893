"""`moesaic serve`: a cluster of local processes until it is told to stop."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from services.cli.cluster import LocalCluster, local_cluster
from services.cli.command import run_command
from services.cli.local_tracing import LocalTracing, local_tracing
from services.cli.members import ClusterPlan, check_settings
from services.cli.ports import ROUTER, refuse_taken, usual_or_next
from services.cli.recording import Recording
from services.cli.report import Report
from services.cli.running import SERVING, STOPPING, recorded
from services.cli.settings import ServeSettings
from services.runtime.host_port import split_host_port
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
    check_settings(settings.model)
    return run_command(_serve(settings), command="serve")


async def _serve(settings: ServeSettings) -> None:
    report = Report()
    settings = _with_addresses(settings, report.line)
    plan = ClusterPlan.from_settings(
        settings,
        drain_seconds=settings.drain_seconds,
        listen=settings.listen,
        router_listen=_router_address(settings, report.line),
        http_listen=settings.http_listen,
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
        with recorded(report.warning) as record:
            kept = Recording(record, tracing.url if tracing is not None else "")
            async with local_cluster(plan, report, verbose=verbose, watch=kept.watch) as cluster:
                kept.is_at(SERVING)
                await _until_told_to_stop(cluster, tracing, report)
                kept.is_at(STOPPING)
    report.line("stopped")


def _with_addresses(settings: ServeSettings, say: Callable[[str], None]) -> ServeSettings:
    """With ports that are free: what was asked for is refused where it is taken, what was not gives
    way.
    """
    if "listen" in settings.model_fields_set:
        refuse_taken(settings.listen)
    else:
        gateway = usual_or_next(settings.listen, "the gateway", say)
        settings = settings.model_copy(update={"listen": gateway})
    if settings.http_listen:
        http = usual_or_next(settings.http_listen, "HTTP", say, [settings.listen])
        settings = settings.model_copy(update={"http_listen": http})
    if settings.tracing and "tracing_http" not in settings.model_fields_set:
        chosen = [settings.listen, *filter(None, [settings.http_listen])]
        page = usual_or_next(settings.tracing_http, "the tracing page", say, chosen)
        settings = settings.model_copy(update={"tracing_http": page})
    return settings


def _router_address(settings: ServeSettings, say: Callable[[str], None]) -> str | None:
    """The usual one; any free one where the gateway is to have any."""
    _, port = split_host_port(settings.listen, lowest_port=0)
    chosen = [settings.listen, *filter(None, [settings.http_listen]), settings.tracing_http]
    return usual_or_next(ROUTER, "the router", say, chosen) if port else None


async def _until_told_to_stop(
    cluster: LocalCluster, tracing: LocalTracing | None, report: Report
) -> None:
    if cluster.http:
        report.line(f"OpenAI's API: http://{cluster.http}/v1")
    if tracing is not None:
        report.line(f"traces: {tracing.url}")
    # Other commands find it by themselves.
    report.line(typed('ready: moesaic generate "Once upon a time"'))
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    await until_told_to_stop(again=task.cancel)  # not at once: nothing is to be left behind
    report.line("stopping")
