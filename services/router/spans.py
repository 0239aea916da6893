"""The spans of a step: in the trace of the first sampled request, with links from every other one's."""

import time
from collections.abc import Mapping
from collections.abc import Sequence as Sequenced

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from services.router.receipt import Parts, ReplyTimes
from services.router.sequence import Sequence, TraceDetail
from services.runtime.tracing import current_traceparent, is_sampled

Attributes = Mapping[str, AttributeValue]

# Parts are measured by the monotonic clock, spans by the wall clock; one offset keeps a process's spans in order.
_WALL_OFFSET = time.time_ns() - time.perf_counter_ns()


class StepSpans:
    """Records nothing: what a step has when none of its requests is sampled."""

    def begin_layer(self, layer: int, started: int) -> "LayerSpans":
        """Open the spans of one layer; `started` is when its gate began."""
        return NO_LAYER_SPANS

    def end(self, parts: Parts, num_tokens: int) -> None:
        """Close the step."""


class LayerSpans:
    """Records nothing: what a layer has when its detail is not sampled."""

    def begin_call(self, address: str, started: int, *, rows: int, pairs: int, num_bytes: int) -> "CallSpan":
        """Open the span of one frame to one service."""
        return NO_CALL_SPAN

    def part(self, name: str, started: int, ended: int) -> None:
        """Record a finished part: gate, scatter, gather or combine."""

    def end(self, ended: int, straggler: str) -> None:
        """Close the layer."""


class CallSpan:
    """Records nothing: a frame that is not traced."""

    traceparent = ""

    def end(self, times: ReplyTimes | None, attempt: int, failure: str = "") -> None:
        """Close the call, once; without `times` no reply came."""


NO_SPANS, NO_LAYER_SPANS, NO_CALL_SPAN = StepSpans(), LayerSpans(), CallSpan()


def spans_of_step(tracer: Tracer, sequences: Sequenced[Sequence], default: TraceDetail, lane: int) -> StepSpans:
    """Open the step's spans in every sampled request's trace, as deep as the requests and `default` say."""
    sampled = [
        (sequence, detail)
        for sequence in sequences
        if (detail := sequence.order.trace_detail or default) >= TraceDetail.STEP and _is_sampled(sequence)
    ]
    if not sampled:
        return NO_SPANS
    leader = max(sampled, key=lambda item: item[1])  # the first of those that go deepest
    attributes = {"moesaic.lane": lane, "moesaic.sequences": len(sequences)}
    span = tracer.start_span("router.step", leader[0].order.trace_context, attributes=attributes)
    if not span.is_recording():
        return NO_SPANS  # the client traces, this process does not
    link = [Link(span.get_span_context())]
    followers = [
        tracer.start_span("router.step", sequence.order.trace_context, links=link)
        for sequence, _ in sampled
        if sequence is not leader[0]
    ]
    return _RecordedStep(tracer, span, followers, deep=leader[1] >= TraceDetail.LAYER)


class _RecordedStep(StepSpans):
    def __init__(self, tracer: Tracer, span: Span, followers: Sequenced[Span], *, deep: bool) -> None:
        self._tracer, self._span, self._followers, self._deep = tracer, span, followers, deep

    def begin_layer(self, layer: int, started: int) -> LayerSpans:
        if not self._deep:
            return NO_LAYER_SPANS
        span = _child(self._tracer, self._span, "router.layer", started, {"moesaic.layer": layer})
        return _RecordedLayer(self._tracer, span, layer)

    def end(self, parts: Parts, num_tokens: int) -> None:
        for name, nanos in vars(parts).items():
            self._span.set_attribute(f"moesaic.{name}_nanos", nanos)
        self._span.set_attribute("moesaic.tokens", num_tokens)
        for span in (self._span, *self._followers):
            span.end()


class _RecordedLayer(LayerSpans):
    def __init__(self, tracer: Tracer, span: Span, layer: int) -> None:
        self._tracer, self._span, self._layer = tracer, span, layer

    def begin_call(self, address: str, started: int, *, rows: int, pairs: int, num_bytes: int) -> CallSpan:
        attributes: Attributes = {
            "moesaic.layer": self._layer,
            "moesaic.rows": rows,
            "moesaic.pairs": pairs,
            "moesaic.bytes": num_bytes,
            "server.address": address,
        }
        span = _child(self._tracer, self._span, "router.expert", started, attributes, kind=SpanKind.CLIENT)
        return _RecordedCall(span, started)

    def part(self, name: str, started: int, ended: int) -> None:
        _child(self._tracer, self._span, f"router.{name}", started, {}).end(ended + _WALL_OFFSET)

    def end(self, ended: int, straggler: str) -> None:
        self._span.set_attribute("moesaic.straggler", straggler)
        self._span.end(ended + _WALL_OFFSET)


class _RecordedCall(CallSpan):
    def __init__(self, span: Span, started: int) -> None:
        self._span, self._started = span, started
        self.traceparent = current_traceparent(trace.set_span_in_context(span))

    def end(self, times: ReplyTimes | None, attempt: int, failure: str = "") -> None:
        self._span.set_attribute("moesaic.attempt", attempt)
        if failure:
            self._span.set_status(trace.StatusCode.ERROR, failure)
        if times is None:
            self._span.end()
            return
        self._span.set_attributes(
            {
                "moesaic.encode_nanos": times.sent - self._started,
                "moesaic.wire_nanos": times.wire,
                "moesaic.queue_nanos": times.server_queue,
                "moesaic.compute_nanos": times.server_compute,
            }
        )
        self._span.end(times.arrived + _WALL_OFFSET)


def _child(
    tracer: Tracer,
    parent: Span,
    name: str,
    started: int,
    attributes: Attributes,
    kind: SpanKind = SpanKind.INTERNAL,
) -> Span:
    context = trace.set_span_in_context(parent)
    return tracer.start_span(name, context, kind, attributes, start_time=started + _WALL_OFFSET)


def _is_sampled(sequence: Sequence) -> bool:
    context = sequence.order.trace_context
    return context is not None and is_sampled(context)
