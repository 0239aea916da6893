"""The trace of an answer, as soon as its services have sent all of it."""

import asyncio
import time

from services.cli.report import Report
from services.cli.trace.source import QueryClient
from services.cli.trace.waterfall import waterfall
from services.runtime.invocation import typed
from services.traces.model import Trace
from services.wire.errors import BadState, NotFound, Unavailable

ASK_SECONDS = 10.0
# Services send their spans every few seconds.
SENT_WITHIN_SECONDS = 8.0
PAUSE_SECONDS = 0.5
HOW = "traces are kept where a tracing service runs: {chat}, or {serve}"


async def show_trace(trace_id: str, url: str, report: Report) -> None:
    """Show it. Raises BadState, with what to do, where nobody keeps traces."""
    how = HOW.format(chat=typed("moesaic chat --tracing"), serve=typed("moesaic serve --tracing"))
    try:
        trace = await _whole_trace(QueryClient(url, timeout_seconds=ASK_SECONDS), trace_id)
    except Unavailable as error:
        raise BadState(f"nobody keeps traces at {url}; {how}") from error
    except NotFound as error:
        raise BadState(f"{url} has no trace of this answer; {how}") from error
    report.console.print(waterfall(trace))


async def _whole_trace(client: QueryClient, trace_id: str) -> Trace:
    """The trace once no more spans have come for a while. Raises as `QueryClient.trace`."""
    until = time.monotonic() + SENT_WITHIN_SECONDS
    num_before = 0
    while True:
        is_last = time.monotonic() > until
        try:
            trace = await client.trace(trace_id)
        except NotFound:
            if is_last:
                raise
        else:
            services = {span.process.service for span in trace.spans}
            if is_last or (len(services) > 1 and len(trace.spans) == num_before):
                return trace
            num_before = len(trace.spans)
        await asyncio.sleep(PAUSE_SECONDS)
