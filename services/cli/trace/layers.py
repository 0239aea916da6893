"""Where the time of layers and steps went, on the critical path: of parallel services only the
straggler counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.cli.trace.model import Span, Trace
from services.cli.trace.parts import CALL, LAYER, NANOS_PER_MICRO, STEP, Part, nanos_of

STEP_PREFIX, NANOS_SUFFIX = "moesaic.", "_nanos"


@dataclass(frozen=True)
class LayerSummary:
    """One layer over all its steps: means in microseconds, of the straggler's round trip for the
    parts.
    """

    layer: int
    count: int
    duration: float
    parts: dict[Part, float]
    straggler: str
    straggler_count: int

    def share(self, part: Part) -> float:
        """The part's share of the layer's time."""
        return self.parts[part] / self.duration if self.duration else 0.0


def straggler_of(trace: Trace, layer: Span) -> Span | None:
    """The call that the layer waited for longest, if the trace has it."""
    calls = [span for span in trace.children(layer) if span.name == CALL]
    named = [
        span for span in calls if span.text("server.address") == layer.text("moesaic.straggler")
    ]
    return max(named or calls, key=lambda span: span.ended, default=None)


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
    calls = [call for span in spans if (call := straggler_of(trace, span)) is not None]
    stragglers = Counter(call.text("server.address") for call in calls)
    ((straggler, times),) = stragglers.most_common(1) or [("", 0)]
    return LayerSummary(
        layer=number,
        count=len(spans),
        duration=sum(span.duration for span in spans) / len(spans),
        parts={
            part: sum(nanos_of(call, part) for call in calls) / len(spans) / NANOS_PER_MICRO
            for part in Part
        },
        straggler=straggler,
        straggler_count=times,
    )
