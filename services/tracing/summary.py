"""A stored trace in the few figures that a list of traces shows."""

from typing import Any

from services.tracing.spans import NANOS_PER_MICRO
from services.tracing.store import StoredTrace


def summary_document(trace: StoredTrace) -> dict[str, Any]:
    """Where the trace begins, how long it took and how many spans each service has in it; times in
    microseconds.
    """
    assert trace.head is not None
    _, _, service, name = trace.head
    return {
        "traceID": trace.trace_id.hex(),
        "rootService": service,
        "rootOperation": name,
        "startTime": trace.started // NANOS_PER_MICRO,
        "duration": max(0, trace.ended - trace.started) // NANOS_PER_MICRO,
        "services": dict(sorted(trace.num_spans.items())),
        "numErrors": trace.num_errors,
    }
