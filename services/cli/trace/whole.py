"""A trace of just now, once its services have sent all of it."""

import asyncio
import time

from services.cli.trace.source import QueryClient
from services.traces.durations import MICROS_PER_SECOND
from services.traces.model import Trace
from services.wire.errors import NotFound

# Services send their spans every second, and a busy machine takes its time.
SENT_WITHIN_SECONDS = 3.0
PAUSE_SECONDS = 0.5


def is_whole(trace: Trace) -> bool:
    """Whether its services must have sent all of it by now."""
    ended = max(span.started + span.duration for span in trace.spans) / MICROS_PER_SECOND
    return time.time() - ended >= SENT_WITHIN_SECONDS


async def whole_trace(client: QueryClient, trace_id: str) -> Trace:
    """The trace once it is whole, and as it is when so long was waited. Raises as
    `QueryClient.trace`.
    """
    until = time.monotonic() + SENT_WITHIN_SECONDS
    while True:
        is_last = time.monotonic() >= until
        try:
            trace = await client.trace(trace_id)
        except NotFound:
            if is_last:
                raise
        else:
            if is_last or is_whole(trace):
                return trace
        await asyncio.sleep(PAUSE_SECONDS)
