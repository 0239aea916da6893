"""`moesaic trace`: one trace, shown in the terminal or written for another viewer."""

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from services.cli.command import run_command
from services.cli.found import with_running_tracing
from services.cli.report import FILE_WIDTH, output
from services.cli.trace.chrome import chrome_document
from services.cli.trace.settings import TraceSettings
from services.cli.trace.source import QueryClient, read_trace
from services.cli.trace.waterfall import waterfall
from services.cli.trace.whole import is_whole, whole_trace
from services.runtime.settings import load
from services.traces.model import Trace
from services.wire.errors import InvalidRequest

DEFAULT_SERVICE = "gateway"
EXAMPLES = (
    "moesaic trace",
    "moesaic trace --where error.type=DEADLINE_EXCEEDED",
    "moesaic trace --where moesaic.layer=3",
    "moesaic trace 4bf92f3577b34da6a3ce929d0e0e4736 --step 0 --layer 3",
    "moesaic trace --last --format chrome --output trace.json",
)


def trace(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(TraceSettings, arguments, "moesaic trace", examples=EXAMPLES)
    return run_command(_show(with_running_tracing(settings)), command="trace")


async def _show(settings: TraceSettings) -> None:
    found = await _find(settings)
    if settings.output is None:
        _print(found, settings)
        return
    text = await asyncio.to_thread(_as_text, found, settings)
    await asyncio.to_thread(_write, settings.output, text)


async def _find(settings: TraceSettings) -> Trace:
    if settings.file is not None:
        return await asyncio.to_thread(read_trace, settings.file, settings.trace_id)
    client = QueryClient(
        settings.source, timeout_seconds=settings.timeout, verbose=settings.verbose
    )
    if settings.trace_id:
        return await client.trace(settings.trace_id)
    tags = dict(pair.split("=", 1) for pair in settings.where)
    service = settings.service or ("" if tags else DEFAULT_SERVICE)
    latest = await client.latest(service, tags)
    return latest if is_whole(latest) else await whole_trace(client, latest.trace_id)


def _print(found: Trace, settings: TraceSettings) -> None:
    if settings.format != "waterfall":
        print(_as_text(found, settings))
        return
    output().print(waterfall(found, step=settings.step, layer=settings.layer))


def _as_text(found: Trace, settings: TraceSettings) -> str:
    if settings.format == "chrome":
        return json.dumps(chrome_document(found))
    if settings.format == "jaeger":
        return json.dumps({"data": [found.document]})
    console = Console(highlight=False, width=FILE_WIDTH, file=io.StringIO(), record=True)
    console.print(waterfall(found, step=settings.step, layer=settings.layer))
    return console.export_text()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror}") from error
