"""What this process records spans with: nothing until somebody asks for traces."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.sdk.trace.sampling import Decision, Sampler

from services.runtime.span_writing import Kind, SpanRef, attribute, encode_span


@dataclass(frozen=True)
class Recorder:
    """Where a process's spans go: `put` takes them encoded. The `sampler` decides on traces that begin here."""

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

    To be read anew for each piece of work, since the wall clock may be set; once for all of its spans, which lie within
    each other then.
    """
    return time.time_ns() - time.perf_counter_ns()


@dataclass(slots=True)
class OpenSpan:
    """A span that is to be recorded; `span` names it to those below it."""

    recorder: Recorder
    name: str
    kind: Kind
    span: SpanRef
    parent_id: bytes
    started: int = field(default_factory=time.time_ns)
    attributes: dict[str, str | int] = field(default_factory=dict)

    def child(self, name: str, kind: Kind = Kind.INTERNAL) -> "OpenSpan":
        """A span below it that begins now."""
        return OpenSpan(self.recorder, name, kind, self.span.child(), self.span.span_id)

    def note(self, attributes: Mapping[str, str | int]) -> None:
        """Write something about it."""
        self.attributes.update(attributes)

    def end(self, error: str | None = None) -> None:
        """Record it as ended now; with `error` where it did not end well. To be called once."""
        attributes = [attribute(key, value) for key, value in self.attributes.items()]
        ended = time.time_ns()
        encoded = encode_span(
            self.name, self.kind, self.span, self.parent_id, self.started, ended, attributes, error=error
        )
        self.recorder.put([encoded])


def begin_span(name: str, kind: Kind, parent: SpanRef | None = None) -> OpenSpan | None:
    """A span below `parent`, or the first one of a trace; None where it is not sampled or nothing is recorded."""
    if _recorder is None:
        return None
    if parent is not None:
        return OpenSpan(_recorder, name, kind, parent.child(), parent.span_id) if parent.is_sampled else None
    root = SpanRef.root()
    result = _recorder.sampler.should_sample(None, int.from_bytes(root.trace_id, "big"), name)
    is_sampled = result.decision is Decision.RECORD_AND_SAMPLE
    return OpenSpan(_recorder, name, kind, root, b"") if is_sampled else None
