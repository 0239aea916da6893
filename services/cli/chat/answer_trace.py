"""The trace of an answer, as soon as its services have sent all of it."""

from services.cli.report import Report
from services.cli.trace.source import QueryClient
from services.cli.trace.waterfall import waterfall
from services.cli.trace.whole import whole_trace
from services.runtime.invocation import typed
from services.wire.errors import BadState, NotFound, Unavailable

ASK_SECONDS = 10.0
HOW = "traces are kept where a tracing service runs: {chat}, or {serve}"


async def show_trace(trace_id: str, url: str, report: Report) -> None:
    """Show it. Raises BadState, with what to do, where nobody keeps traces."""
    how = HOW.format(chat=typed("moesaic chat --tracing"), serve=typed("moesaic serve --tracing"))
    try:
        trace = await whole_trace(QueryClient(url, timeout_seconds=ASK_SECONDS), trace_id)
    except Unavailable as error:
        raise BadState(f"nobody keeps traces at {url}; {how}") from error
    except NotFound as error:
        raise BadState(f"{url} has no trace of this answer; {how}") from error
    report.console.print(waterfall(trace))
