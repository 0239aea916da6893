"""What this process records spans with: nothing until somebody asks for traces."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from services.runtime.span_writing import SpanKind, SpanRef, encode_span


@dataclass(frozen=True)
class Recorder:
    """Where a process's spans go: `put` takes them encoded. The `sampler` decides where requests
    enter the process.
    """

    put: Callable[[Sequence[bytes]], None]
    sampler: Sampler


_recorder: Recorder | None = None


def recorder() -> Recorder | None:
    """The process's recorder; None where nobody asked for traces."""
    return _recorder


@contextmanager
def recording_with(recorder: Recorder) -> Iterator[None]:
    """Record with this one until the block ends."""
    global _recorder
    before, _recorder = _recorder, recorder
    try:
        yield
    finally:
        _recorder = before


def wall_offset() -> int:
    """What makes a reading of `time.perf_counter_ns` a time since 1970, in nanoseconds.

    To be read anew for each piece of work, since the wall clock may be set; once for all of its
    spans, which lie within each other then.
    """
    return time.time_ns() - time.perf_counter_ns()


@dataclass(slots=True)
class OpenSpan:
    """A span that is to be recorded; `span` names it to those below it."""

    recorder: Recorder
    name: str
    kind: SpanKind
    span: SpanRef
    parent_id: bytes
    started: int = field(default_factory=time.time_ns)
    attributes: dict[str, str | int] = field(default_factory=dict)

    def child(self, name: str, kind: SpanKind = SpanKind.INTERNAL) -> "OpenSpan":
        """A span below it that begins now."""
        return OpenSpan(self.recorder, name, kind, self.span.child(), self.span.span_id)

    def note(self, attributes: Mapping[str, str | int]) -> None:
        """Write something about it."""
        self.attributes.update(attributes)

    def end(self, error: str | None = None) -> None:
        """Record it as ended now; with `error` where it did not end well. To be called once."""
        encoded = encode_span(
            self.name,
            self.kind,
            self.span,
            self.parent_id,
            self.started,
            time.time_ns(),
            self.attributes,
            error=error,
        )
        self.recorder.put([encoded])


def begin_span(name: str, kind: SpanKind, parent: SpanRef | None = None) -> OpenSpan | None:
    """A span below `parent`, or the first one of a trace; None where it is not sampled or nothing
    is recorded.
    """
    if _recorder is None:
        return None
    span = SpanRef.root() if parent is None else parent.child()
    result = _recorder.sampler.should_sample(
        _context(parent), int.from_bytes(span.trace_id, "big"), name
    )
    if result.decision is not Decision.RECORD_AND_SAMPLE:
        return None
    return OpenSpan(
        _recorder,
        name,
        kind,
        span._replace(is_sampled=True),
        b"" if parent is None else parent.span_id,
    )


def passed_on(span: OpenSpan | None, parent: SpanRef | None) -> SpanRef | None:
    """What others are told to go on below: the span; the parent as it came where nobody records
    here; else that nothing is sampled, so that none of them decides anew.
    """
    if span is not None:
        return span.span
    if _recorder is None:
        return parent
    return (parent or SpanRef.root())._replace(is_sampled=False)


def _context(parent: SpanRef | None) -> Context | None:
    """A parent as samplers are told of it."""
    if parent is None:
        return None
    trace_id, span_id = (
        int.from_bytes(parent.trace_id, "big"),
        int.from_bytes(parent.span_id, "big"),
    )
    flags = TraceFlags(TraceFlags.SAMPLED if parent.is_sampled else TraceFlags.DEFAULT)
    return set_span_in_context(
        NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))
    )
