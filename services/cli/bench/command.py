"""`moesaic bench`: loads a running cluster, or one of its own, and shows how it was served."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.cli.bench.client import Client, LoadClient
from services.cli.bench.document import Findings, write_document
from services.cli.bench.failures import RequestsFailed, failure_sentence
from services.cli.bench.figures import figures_of
from services.cli.bench.http_client import http_client
from services.cli.bench.loads import Bounds, ClosedLoop, OfferedLoad
from services.cli.bench.objectives import read_objectives
from services.cli.bench.progress import shown_progress
from services.cli.bench.prompts import BenchPrompt, built_in_prompts, cut_to, read_prompts
from services.cli.bench.run import LoadRun
from services.cli.bench.settings import BenchSettings
from services.cli.bench.tables import remarks, tables
from services.cli.cluster import gateway_address
from services.cli.command import run_command
from services.cli.found import with_running_gateway
from services.cli.machine import Machine
from services.cli.members import check_settings
from services.cli.output_files import complaint_of
from services.cli.report import Report, output
from services.runtime.channels import open_channel
from services.runtime.settings import load as load_settings
from services.runtime.settings import refuse
from services.wire.errors import InvalidRequest

PROG = "moesaic bench"
FILE_WIDTH = 100

EXAMPLES = (
    "moesaic bench",
    "moesaic bench --gateway 127.0.0.1:50051 --concurrency 1,4,16,64 --ignore-eos",
    "moesaic bench --gateway 127.0.0.1:50051 --rate 0.5,1,2 --seconds 60 --slo "
    "ttft=500ms,itl=100ms",
    "moesaic bench --gateway 127.0.0.1:50051 --rate 4 --arrivals constant --max-in-flight 64",
    "moesaic bench --concurrency 8 --requests 100 --prompt-tokens 256 --max-new-tokens 128 --json "
    "run.json",
    "moesaic bench --prompts prompts.jsonl --temperature 0 --requests 200",
    "moesaic bench --http http://127.0.0.1:8000 --concurrency 1,16 --ignore-eos",
)


def bench(arguments: Sequence[str]) -> int:
    """Run the command; its exit code: 1 when any request failed."""
    settings = load_settings(BenchSettings, arguments, PROG, examples=EXAMPLES)
    settings = with_running_gateway(settings, "http")
    try:
        prompts = (
            read_prompts(settings.prompts) if settings.prompts is not None else built_in_prompts()
        )
    except InvalidRequest as error:
        refuse(PROG, [str(error)])
    # Found out now, not when hours of figures are to be written.
    if settings.json_output is not None and (complaint := complaint_of(settings.json_output)):
        refuse(PROG, [f"--json: {complaint}"])
    if settings.address is None and settings.http is None:
        check_settings(settings.model)
    return run_command(_bench(settings, prompts), command="bench")


async def _bench(settings: BenchSettings, prompts: Sequence[BenchPrompt]) -> None:
    report = Report()
    findings = Findings(settings, Machine.here())
    async with _address(settings, report) as address:
        findings.address = address
        try:
            await _measure(findings, prompts, report)
        except asyncio.CancelledError:
            findings.interrupted = True
            raise
        finally:
            _show(findings, report)
    failed = failure_sentence(findings.samples)
    if failed is not None:
        raise RequestsFailed(failed)


@asynccontextmanager
async def _address(settings: BenchSettings, report: Report) -> AsyncIterator[str]:
    if settings.http is not None:
        yield settings.http
        return
    async with gateway_address(settings, report) as address:
        yield address


@asynccontextmanager
async def _client(
    settings: BenchSettings, address: str, prompts: Sequence[BenchPrompt]
) -> AsyncIterator[Client]:
    if settings.http is not None:
        async with http_client(address, settings, prompts) as over_http:
            yield over_http
        return
    async with open_channel(address, tls=settings.gateway_trust) as channel:
        yield LoadClient(channel, settings, prompts)


async def _measure(findings: Findings, prompts: Sequence[BenchPrompt], report: Report) -> None:
    settings = findings.settings
    async with _client(settings, findings.address, prompts) as client:
        findings.model = await client.describe()
        if settings.prompt_tokens is not None:
            client.prompts = await cut_to(client.tokenise, prompts, settings.prompt_tokens)
        for load in settings.loads:
            await _warm_up(load, client, settings.warm_up)
            if not await _measure_load(load, client, findings, report):
                report.line("no request was completed: what is left is not measured")
                return


async def _warm_up(load: OfferedLoad, client: Client, num_requests: int) -> None:
    """Raises RequestsFailed when none of the requests is completed: then none would be."""
    if num_requests == 0:
        return
    at_a_time = load.concurrency if isinstance(load, ClosedLoop) else num_requests
    run = LoadRun(ClosedLoop(at_a_time), Bounds(num_requests, None))
    await run.run(client.send)
    if run.num_failed == len(run.samples):
        raise RequestsFailed(f"warm-up: {failure_sentence(run.samples)}")


async def _measure_load(
    load: OfferedLoad, client: Client, findings: Findings, report: Report
) -> bool:
    """Whether any request was completed."""
    run = LoadRun(load, findings.settings.bounds, first_number=findings.settings.warm_up)
    try:
        async with shown_progress(run, lambda: client.num_tokens, report):
            await run.run(client.send)
    finally:  # broken off, it has figures too
        figures = figures_of(run, read_objectives(findings.settings.slo))
        findings.loads.append((run, figures))
    return figures.num_completed > 0


def _show(findings: Findings, report: Report) -> None:
    if findings.interrupted:
        report.line("interrupted: what follows is what was measured until then")
    if findings.loads:
        console = output(FILE_WIDTH)
        for table in tables(findings.figures, console.width):
            console.print("\n", table, "\n", sep="", end="")
        for figures in findings.figures:
            for remark in remarks(figures):
                console.print(f"· {remark}", markup=False)
        console.print(_described(findings), style="dim", markup=False)
    if findings.settings.json_output is not None:
        write_document(findings, findings.settings.json_output)
        report.line(f"wrote {findings.settings.json_output}")


def _described(findings: Findings) -> str:
    model = findings.model
    assert model is not None, "a load was measured"
    client = findings.figures[-1].client
    shape = (
        f" ({model.model_type}, {model.num_experts_per_token} of {model.num_experts} experts in "
        f"{model.num_moe_layers} layers)"
    )
    return (
        f"{model.model}{shape if model.model_type else ''} at {findings.address}; client on "
        f"{findings.machine}, {client.cpu_seconds_per_1000_tokens:.2f} CPU s per 1,000 tokens, "
        f"late {client.late_share:.1%} of the time"
    )
