"""`moesaic generate`: one prompt through a running cluster, or through one of its own."""

import json
import sys
from collections.abc import Sequence

from moesaic.v1 import generation_pb2
from services.cli.asked_model import model_of
from services.cli.cluster import LocalCluster, own_plan, reached_cluster
from services.cli.command import run_command
from services.cli.cost import as_object, summary
from services.cli.found import with_running_gateway
from services.cli.known import Known
from services.cli.local_tracing import ANY_PORT, LocalTracing, local_tracing
from services.cli.members import check_settings
from services.cli.report import Report
from services.cli.request import RequestFailed, build_request, stream
from services.cli.settings import GenerateSettings
from services.cli.shown_receipt import show_receipt
from services.cli.trace.source import QueryClient
from services.cli.trace.waterfall import waterfall
from services.cli.words import word_writer
from services.runtime.settings import load, refuse
from services.runtime.text_files import STANDARD, Unreadable, read_text
from services.wire.errors import InvalidRequest

TRACE_SECONDS = 30.0

EXAMPLES = (
    'moesaic generate "Once upon a time"',
    'moesaic generate --temperature 0 --max-new-tokens 40 --json "One day"',
    'moesaic generate --tracing "Once upon a time"',
    'moesaic generate --address 127.0.0.1:50051 --chat "Tell me a story."',
    "moesaic generate --model /models/OLMoE-1B-7B-0924 --experts 4 - < prompt.txt",
)


def generate(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(GenerateSettings, arguments, "moesaic generate", examples=EXAMPLES)
    settings = with_running_gateway(settings, "tracing")
    try:
        settings = settings.model_copy(update={"stop": [_as_utf8(stop) for stop in settings.stop]})
        prompt = (
            read_text(STANDARD) if settings.prompt == str(STANDARD) else _as_utf8(settings.prompt)
        )
        request = build_request(settings, prompt)
    except UnicodeError:
        refuse("moesaic generate", ["the prompt and the stop texts must be UTF-8"])
    except (Unreadable, InvalidRequest) as error:
        refuse("moesaic generate", [str(error)])
    if settings.address is None:
        check_settings(settings.model)
    return run_command(_generate(settings, prompt, request), command="generate")


def _as_utf8(argument: str) -> str:
    """What was typed; raises UnicodeError for bytes of another encoding.

    Python reads arguments as the locale has it, and keeps the bytes that are none there in a form
    of its own.
    """
    return argument.encode("utf-8", "surrogateescape").decode()


async def _generate(
    settings: GenerateSettings, prompt: str, request: generation_pb2.GenerateRequest
) -> None:
    report = Report()
    shown_at = ANY_PORT if settings.tracing and settings.address is None else None
    others = own_plan(settings).num_members
    async with local_tracing(
        shown_at, report, verbose=settings.verbose, num_others=others
    ) as tracing:
        telemetry = tracing.variables(every_trace=True) if tracing is not None else None
        async with reached_cluster(settings, report, telemetry) as cluster:
            await _continue(settings, prompt, request, cluster, report)
        if tracing is not None:  # by now the services have ended, and sent what they had
            await _show_trace(tracing, report)


async def _show_trace(tracing: LocalTracing, report: Report) -> None:
    client = QueryClient(tracing.url, timeout_seconds=TRACE_SECONDS)
    trace = await client.latest("gateway", {})
    report.line("")
    report.console.print(waterfall(trace))


async def _continue(
    settings: GenerateSettings,
    prompt: str,
    request: generation_pb2.GenerateRequest,
    cluster: LocalCluster,
    report: Report,
) -> None:
    write = _keep_quiet if settings.json_output else _write
    words = word_writer(sys.stdout, write)
    is_read_along = sys.stdout.isatty() and sys.stderr.isatty() and not settings.json_output
    if is_read_along and not settings.chat:
        words.follow(prompt, report.quote)  # for who reads along; never in the output itself
    addresses = (cluster.gateway, *settings.other_addresses)
    outcome = await stream(addresses, request, settings, words.write)
    words.end()
    write("\n")
    show_receipt(outcome, settings.receipt, await _known(settings, cluster), report)
    for number, choice in enumerate(outcome.others, 1):
        report.line(f"\nchoice {number}: {summary(choice)}")
        write(f"{choice.text}\n")
    if settings.json_output:
        _write(json.dumps(as_object(outcome)) + "\n")


async def _known(settings: GenerateSettings, cluster: LocalCluster) -> Known:
    try:
        model = await model_of(cluster.gateway, settings)
    except RequestFailed:  # it has answered already: what it cost is shown without
        return Known(cluster.names)
    return Known(cluster.names, model.num_moe_layers)


def _keep_quiet(text: str) -> None:
    """The text is in the JSON, which is to be alone on stdout."""


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
