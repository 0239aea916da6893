"""What a stored trace comes to, for the page: the terminal's words, and who waited for whom."""

from typing import Any

from services.traces.heat import heat_of
from services.traces.layers import straggler_of, summarise_layers
from services.traces.model import Span, Trace
from services.traces.parts import LAYER
from services.traces.processes import labels_of, names_of_addresses
from services.traces.verdict import failure_of, is_cancelled, verdict, waited_for
from services.tracing.jaeger import trace_document
from services.tracing.store import StoredTrace

Document = dict[str, Any]


def reading_document(stored: StoredTrace) -> Document:
    """Verdict, failure, layers, heat map and names of one trace; times are microseconds."""
    trace = Trace.parse(trace_document(stored))
    names = names_of_addresses(trace)
    failure = failure_of(trace)
    return {
        "verdict": [{"text": one.text, "spanID": _id(one.span)} for one in verdict(trace)],
        "failure": failure and {"text": failure[0], "spanID": failure[1].span_id},
        "isCancelled": is_cancelled(trace),
        "labels": {process.process_id: label for process, label in labels_of(trace).items()},
        "names": dict(names),
        "layers": [
            {
                "layer": one.layer,
                "count": one.count,
                "duration": one.duration,
                "parts": {part.value: micros for part, micros in one.parts.items()},
                "straggler": names.get(one.straggler, one.straggler),
                "stragglerCount": one.straggler_count,
                "stragglerCost": one.straggler_cost,
            }
            for one in summarise_layers(trace)
        ],
        "heat": [
            {
                "layer": cell.layer,
                "service": names.get(cell.address, cell.address),
                "calls": cell.num_calls,
                "duration": cell.duration,
                "count": cell.count,
                "cost": cell.cost,
                "spanID": _id(cell.worst),
            }
            for cell in heat_of(trace)
        ],
        "stragglers": {
            layer.span_id: {
                "spanID": _id(straggler_of(trace, layer)),
                "text": waited_for(trace, layer, names),
            }
            for layer in trace.named(LAYER)
        },
    }


def _id(span: Span | None) -> str | None:
    return None if span is None else span.span_id
