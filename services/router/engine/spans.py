"""The spans of a step: in the trace of the request that goes deepest, with links from every other
one's.

What a layer's spans need is noted while it is computed and written when the step is over; so a step
whose layers nobody asked for has them all the same where it was slow or something failed.
"""

import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Sequenced
from typing import TypeAlias

from services.router.engine.sequence import Sequence, SequenceTrace, TraceDetail
from services.router.engine.straggler_attributes import straggler_attributes
from services.router.engine.tracing import TracePolicy
from services.router.times.blame import Blame
from services.router.times.receipt import Parts, ReplyTimes
from services.runtime.span_writing import NO_ATTRIBUTES, SpanKind, SpanRef, encode_span
from services.runtime.tracing import Recorder, recorder, wall_offset

# The experts that a frame has rows for, each once.
Experts: TypeAlias = Callable[[], Sequenced[int]]

PART_NAMES = {
    "gate": "router.gate",
    "scatter": "router.scatter",
    "gather": "router.gather",
    "combine": "router.combine",
}


class StepSpans:
    """Records nothing: what a step has when none of its requests is sampled."""

    def begin_layer(self, layer: int, started: int) -> "LayerSpans":
        """Open the spans of one layer; `started` is when its gate began."""
        return NO_LAYER_SPANS

    def end(self, parts: Parts, num_tokens: int) -> None:
        """Close the step."""


class LayerSpans:
    """Records nothing: what a layer has when its step is not traced."""

    def begin_frame(
        self, address: str, started: int, *, rows: int, pairs: int, num_bytes: int, experts: Experts
    ) -> "FrameSpan":
        """Open the span of one frame to one service; `experts` is asked once, if ever."""
        return NO_FRAME_SPAN

    def part(self, name: str, started: int, ended: int) -> None:
        """Record a finished part: gate, scatter, gather or combine."""

    def end(self, ended: int, blamed: Blame | None) -> None:
        """Close the layer; `blamed` is whom it waited for."""


class FrameSpan:
    """Records nothing: a frame that is not traced."""

    traceparent = ""

    def end(
        self, times: ReplyTimes | None, attempt: int, failure: str = "", lost_at: int | None = None
    ) -> None:
        """Close the span, once; without `times` no reply came, as was known at `lost_at`."""

    def pass_over(self, attempt: int) -> None:
        """Close the span of a frame whose answer is not needed: the same was sent to others, too.
        That is no failure.
        """


NO_SPANS, NO_LAYER_SPANS, NO_FRAME_SPAN = StepSpans(), LayerSpans(), FrameSpan()


def spans_of_step(
    tracing: TracePolicy, sequences: Sequenced[Sequence], lane: int, started: int
) -> StepSpans:
    """Open the step's spans in the trace of every request that is traced to its steps."""
    traced = [
        sequence.trace
        for sequence in sequences
        if sequence.trace is not None and sequence.trace.detail >= TraceDetail.STEP
    ]
    recording = recorder()
    if not traced or recording is None:
        return NO_SPANS
    return _RecordedStep(recording, tracing, traced, started, lane, len(sequences))


class _RecordedStep(StepSpans):
    def __init__(
        self,
        recording: Recorder,
        tracing: TracePolicy,
        traced: Sequenced[SequenceTrace],
        started: int,
        lane: int,
        num_sequences: int,
    ) -> None:
        self.is_deep = any(trace.detail >= TraceDetail.LAYER for trace in traced)
        self.kept = ""  # why the layers are recorded though nobody asked for them
        leader = max(traced, key=lambda trace: trace.detail)  # the first of those that go deepest
        self.span = leader.span.child()
        self.offset = wall_offset()
        self._recording, self._tracing = recording, tracing
        self._leader, self._followers = (
            leader,
            [trace.span for trace in traced if trace is not leader],
        )
        self._is_chosen = any(trace.is_chosen for trace in traced)
        self._started, self._lane, self._num_sequences = started, lane, num_sequences
        self._layers: list[_RecordedLayer] = []

    @property
    def has_layers(self) -> bool:
        """Whether it is known by now that the layers will be recorded."""
        return self.is_deep or bool(self.kept)

    def begin_layer(self, layer: int, started: int) -> LayerSpans:
        recorded = _RecordedLayer(self, layer, started)
        self._layers.append(recorded)
        return recorded

    def end(self, parts: Parts, num_tokens: int) -> None:
        nanos = parts.total()
        if self._is_chosen:
            self._tracing.layers.spend(nanos)
        if self._tracing.usual.is_slow(num_tokens, nanos):
            self.kept = self.kept or "slow"
        ended = self._started + nanos
        attributes: dict[str, str | int] = {
            f"moesaic.{name}_nanos": nanos for name, nanos in vars(parts).items()
        }
        attributes["moesaic.lane"] = self._lane
        attributes["moesaic.sequences"] = self._num_sequences
        attributes["moesaic.tokens"] = num_tokens
        if self.kept:
            attributes["moesaic.kept"] = self.kept
        encoded = [self._encode(self.span, self._leader.span, ended, attributes, ())]
        links = (self.span,)
        encoded += [
            self._encode(span.child(), span, ended, NO_ATTRIBUTES, links)
            for span in self._followers
        ]
        if self.has_layers:
            for layer in self._layers:
                layer.encode(encoded)
        self._layers = []  # which refer to the step: nothing is left to the garbage collector
        self._recording.put(encoded)

    def _encode(
        self,
        span: SpanRef,
        parent: SpanRef,
        ended: int,
        attributes: Mapping[str, str | int],
        links: Sequenced[SpanRef],
    ) -> bytes:
        started, ended = self._started + self.offset, ended + self.offset
        return encode_span(
            "router.step",
            SpanKind.INTERNAL,
            span,
            parent.span_id,
            started,
            ended,
            attributes,
            links,
        )


class _RecordedLayer(LayerSpans):
    def __init__(self, step: _RecordedStep, layer: int, started: int) -> None:
        self.step = step
        self._span: SpanRef | None = None
        self._layer, self._started = layer, started
        self._ended = started
        self._blamed: Blame | None = None
        self._parts: list[tuple[str, int, int]] = []
        self._frames: list[_RecordedFrame] = []

    @property
    def span(self) -> SpanRef:
        """The layer's span; most steps need none."""
        if self._span is None:
            self._span = self.step.span.child()
        return self._span

    def begin_frame(
        self, address: str, started: int, *, rows: int, pairs: int, num_bytes: int, experts: Experts
    ) -> FrameSpan:
        span = self.span if self.step.has_layers else None
        sizes = {"moesaic.rows": rows, "moesaic.pairs": pairs, "moesaic.bytes": num_bytes}
        frame = _RecordedFrame(self.step, span, address, started, sizes, experts)
        self._frames.append(frame)
        return frame

    def part(self, name: str, started: int, ended: int) -> None:
        self._parts.append((name, started, ended))

    def end(self, ended: int, blamed: Blame | None) -> None:
        self._ended, self._blamed = ended, blamed

    def encode(self, into: list[bytes]) -> None:
        """Write the layer's spans."""
        offset, span = self.step.offset, self.span
        of_layer: dict[str, str | int] = {"moesaic.layer": self._layer}
        ended = max([self._ended, *(end for _, _, end in self._parts)])
        into.append(
            encode_span(
                "router.layer",
                SpanKind.INTERNAL,
                span,
                self.step.span.span_id,
                self._started + offset,
                ended + offset,
                of_layer | straggler_attributes(self._blamed),
            )
        )
        into += [
            encode_span(
                PART_NAMES[name],
                SpanKind.INTERNAL,
                span.child(),
                span.span_id,
                started + offset,
                end + offset,
                of_layer,
            )
            for name, started, end in self._parts
        ]
        into += [frame.encode(span, self._layer) for frame in self._frames]


class _RecordedFrame(FrameSpan):
    def __init__(
        self,
        step: _RecordedStep,
        layer: SpanRef | None,
        address: str,
        started: int,
        sizes: Mapping[str, int],
        experts: Experts,
    ) -> None:
        self._step, self._address = step, address
        self._sizes, self._experts = sizes, experts
        # Of a step that is kept for what happens later the services know nothing yet, and record
        # nothing.
        self._span = None if layer is None else layer.child()
        self.traceparent = "" if self._span is None else self._span.traceparent
        self._started = self._ended = started
        self._times: ReplyTimes | None = None
        self._attempt, self._failure = 1, ""

    def end(
        self, times: ReplyTimes | None, attempt: int, failure: str = "", lost_at: int | None = None
    ) -> None:
        self._times, self._attempt, self._failure = times, attempt, failure
        if times is not None:
            self._ended = times.arrived
        else:
            self._ended = max(self._started, lost_at or time.perf_counter_ns())
        if failure:
            self._step.kept = "failed"

    def pass_over(self, attempt: int) -> None:
        self._attempt, self._failure = attempt, "its answer was not needed"
        self._ended = time.perf_counter_ns()

    def encode(self, layer: SpanRef, number: int) -> bytes:
        """Write the span, below that of the layer, which has this `number`."""
        attributes: dict[str, str | int] = {
            "moesaic.layer": number,
            **self._sizes,
            "moesaic.experts": ",".join(map(str, self._experts())),
            "server.address": self._address,
            "moesaic.attempt": self._attempt,
        }
        times, offset = self._times, self._step.offset
        if times is not None:
            attributes |= {
                "moesaic.encode_nanos": times.sent - self._started,
                "moesaic.wire_nanos": times.wire,
                "moesaic.decode_nanos": times.server_decode,
                "moesaic.queue_nanos": times.server_queue,
                "moesaic.compute_nanos": times.server_compute - times.server_decode,
            }
        return encode_span(
            "router.expert",
            SpanKind.CLIENT,
            self._span or layer.child(),
            layer.span_id,
            self._started + offset,
            self._ended + offset,
            attributes,
            error=self._failure or None,
        )
