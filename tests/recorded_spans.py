"""Every span that this process records while a block lasts, as a collector would read it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.trace.sampling import DEFAULT_ON

from services.runtime.tracing import Recorder, recording_with

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


@dataclass
class RecordedSpans:
    """What was recorded so far."""

    encoded: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """All of them, in the order in which they ended."""
        return list(ScopeSpans.FromString(b"".join(self.encoded)).spans)

    def named(self, name: str) -> list[Span]:
        """Those of a name."""
        return [span for span in self.spans if span.name == name]


@contextmanager
def recorded_spans() -> Iterator[RecordedSpans]:
    """Record until the block ends; traces without a parent are sampled."""
    recorded = RecordedSpans()
    with recording_with(Recorder(recorded.encoded.extend, DEFAULT_ON)):
        yield recorded


def attributes_of(span: Span) -> dict[str, str | int]:
    """What is written about a span."""
    return {
        one.key: one.value.string_value
        if one.value.HasField("string_value")
        else one.value.int_value
        for one in span.attributes
    }
