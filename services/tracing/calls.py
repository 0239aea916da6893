"""Which service calls which: how often, how long it takes and how often it fails."""

import asyncio
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from services.tracing.spans import NANOS_PER_MICRO, nanos_of
from services.tracing.store import SpanStore, StoredTrace


@dataclass
class Calls:
    """The calls of one service by another: what they took the called one, in microseconds, and how
    many failed.
    """

    micros: "array[int]" = field(default_factory=lambda: array("Q"))
    num_errors: int = 0

    def quantiles(self, *shares: float) -> list[int]:
        """What this share of the calls took at most."""
        ordered = sorted(self.micros)
        return [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares]


Edges = dict[tuple[str, str], Calls]


async def find_calls(store: SpanStore, started_from: int, started_to: int) -> Edges:
    """The calls of all traces that began in this time, in nanoseconds since 1970: a span of one
    service (first) is the parent of a span of another (second).
    """
    edges: Edges = {}
    for trace in store.latest_first():
        if started_from <= trace.started <= started_to:
            _add_calls(trace, edges)
            await asyncio.sleep(0)
    return edges


def _add_calls(trace: StoredTrace, edges: Edges) -> None:
    spans: Sequence[tuple[str, Span]] = [
        (recorded.source.service, recorded.decoded()) for recorded in trace.spans
    ]
    services = {span.span_id: service for service, span in spans}
    for service, span in spans:
        caller = services.get(span.parent_span_id, service)
        if caller != service:
            calls = edges.setdefault((caller, service), Calls())
            calls.micros.append(nanos_of(span) // NANOS_PER_MICRO)
            calls.num_errors += span.status.code == Status.STATUS_CODE_ERROR
