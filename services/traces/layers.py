"""Where the time of layers and steps went, on the critical path: of parallel services only the
straggler counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.traces.model import Span, Trace
from services.traces.parts import CALL, LAYER, NANOS_PER_MICRO, STEP, Part, nanos_of

STEP_PREFIX, NANOS_SUFFIX = "moesaic.", "_nanos"


@dataclass(frozen=True)
class LayerSummary:
    """One layer over all its steps: means in microseconds, of the straggler's round trip for the
    parts. The straggler is the service that cost them most time in all, `straggler_cost`, and of
    `straggler_count` of them the straggler.
    """

    layer: int
    count: int
    duration: float
    parts: dict[Part, float]
    straggler: str
    straggler_count: int
    straggler_cost: float

    def share(self, part: Part) -> float:
        """The part's share of the layer's time."""
        return self.parts[part] / self.duration if self.duration else 0.0


def straggler_of(trace: Trace, layer: Span) -> Span | None:
    """The call that cost the layer most, if the trace has it: the longest of its straggler's."""
    calls = [span for span in trace.children(layer) if span.name == CALL]
    named = [
        span for span in calls if span.text("server.address") == layer.text("moesaic.straggler")
    ]
    if named:
        return max(named, key=lambda span: span.duration)
    return max(calls, key=lambda span: span.ended, default=None)


def straggler_cost(layer: Span, call: Span) -> float:
    """Microseconds that its straggler cost the layer."""
    nanos = layer.number("moesaic.straggler_nanos")
    return call.duration if nanos is None else nanos / NANOS_PER_MICRO


def service_span(trace: Trace, call: Span) -> Span | None:
    """What the service that was called recorded of the call, if it did."""
    return next((span for span in trace.children(call) if span.process != call.process), None)


def summarise_layers(trace: Trace) -> Sequence[LayerSummary]:
    """Each traced layer, by its number."""
    by_number: dict[int, list[Span]] = {}
    for span in trace.named(LAYER):
        by_number.setdefault(span.number("moesaic.layer") or 0, []).append(span)
    return [_summary(trace, number, spans) for number, spans in sorted(by_number.items())]


def step_parts(trace: Trace) -> dict[str, int]:
    """Nanoseconds by part, over all steps that this trace holds the details of, longest first."""
    sums: Counter[str] = Counter()
    for step in trace.named(STEP):
        for key in step.tags:
            if key.startswith(STEP_PREFIX) and key.endswith(NANOS_SUFFIX):
                sums[key[len(STEP_PREFIX) : -len(NANOS_SUFFIX)]] += step.number(key) or 0
    return dict(sums.most_common())


def _summary(trace: Trace, number: int, spans: Sequence[Span]) -> LayerSummary:
    calls, times = [], Counter[str]()
    costs: dict[str, float] = {}
    for span in spans:
        call = straggler_of(trace, span)
        if call is not None:
            calls.append(call)
            address = call.text("server.address")
            times[address] += 1
            costs[address] = costs.get(address, 0.0) + straggler_cost(span, call)
    straggler = max(costs, key=costs.__getitem__, default="")
    return LayerSummary(
        layer=number,
        count=len(spans),
        duration=sum(span.duration for span in spans) / len(spans),
        parts={
            part: sum(nanos_of(call, part) for call in calls) / len(spans) / NANOS_PER_MICRO
            for part in Part
        },
        straggler=straggler,
        straggler_count=times[straggler],
        straggler_cost=costs.get(straggler, 0.0),
    )
