"""A recorded span and who recorded it, kept encoded: a process's memory holds many times more of
them so.
"""

from dataclasses import dataclass
from functools import lru_cache

from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.tracing.tags import Tag, tags_of

SERVICE_NAME_KEY = "service.name"
# As OpenTelemetry's own mapping calls a process that does not say its name.
NO_SERVICE_NAME = "unknown_service"

TRACE_ID_BYTES, SPAN_ID_BYTES = 16, 8
NANOS_PER_MICRO = 1_000
# What the store's list, the tuple and the bytes objects take besides the bytes themselves.
OVERHEAD_BYTES = 160

KINDS = {
    Span.SPAN_KIND_INTERNAL: "internal",
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}


@dataclass(frozen=True, slots=True)
class Source:
    """The process that recorded a span: its service's name and its other attributes."""

    service: str
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class RecordedSpan:
    """A span as it came, with the name and version of the instrumentation that made it."""

    source: Source
    scope: tuple[str, str]
    encoded: bytes

    @classmethod
    def from_message(cls, source: Source, scope: tuple[str, str], span: Span) -> "RecordedSpan":
        """The span of a message."""
        return cls(source, scope, span.SerializeToString())

    @property
    def num_bytes(self) -> int:
        """The memory that it takes, about."""
        return len(self.encoded) + OVERHEAD_BYTES

    def decoded(self) -> Span:
        """The message, decoded anew at each call."""
        return Span.FromString(self.encoded)


def source_of(resource: Resource) -> Source:
    """The process that OTLP calls a resource; equal ones are one object as long as they
    are in use.
    """
    return _source(resource.SerializeToString(deterministic=True))


@lru_cache(maxsize=1024)
def _source(encoded: bytes) -> Source:
    tags = tags_of(Resource.FromString(encoded).attributes)
    service = next((tag.text for tag in tags if tag.key == SERVICE_NAME_KEY), "")
    return Source(
        service or NO_SERVICE_NAME, tuple(tag for tag in tags if tag.key != SERVICE_NAME_KEY)
    )


def is_identified(span: Span) -> bool:
    """Whether the span's ids are what OTLP demands: of the right length and not all zero."""
    return (
        len(span.trace_id) == TRACE_ID_BYTES
        and any(span.trace_id)
        and len(span.span_id) == SPAN_ID_BYTES
        and any(span.span_id)
    )


def nanos_of(span: Span) -> int:
    """How long the span took; clocks that were set back make it nothing, not less."""
    return max(0, span.end_time_unix_nano - span.start_time_unix_nano)
