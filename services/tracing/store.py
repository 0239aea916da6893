"""Traces in bounded memory: the ones that nothing was added to for longest go first."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.tracing.spans import KINDS, RecordedSpan, Source

# Of the memory, what one trace may take: it must not drive out all the others.
LARGEST_SHARE = 4


@dataclass(frozen=True, order=True, slots=True)
class TracedOperation:
    """Something that a service does, by the name and kind of its spans."""

    service: str
    name: str
    kind: str


@dataclass(slots=True)
class StoredTrace:
    """The spans of one trace that came so far; times are nanoseconds since 1970."""

    trace_id: bytes
    spans: list[RecordedSpan] = field(default_factory=list)
    operations: set[TracedOperation] = field(default_factory=set)
    num_spans: Counter[str] = field(default_factory=Counter)
    # Whether it has a parent, its start, its service and its name: of the span that stands for the
    # whole trace. The client may not export here, so that every span has a parent and the first one
    # has to do.
    head: tuple[bool, int, str, str] | None = None
    started: int = 0
    ended: int = 0
    num_bytes: int = 0
    num_errors: int = 0

    def add(self, recorded: RecordedSpan, span: Span) -> None:
        """Take one more; `span` is what `recorded` holds."""
        self.started = min(self.started or span.start_time_unix_nano, span.start_time_unix_nano)
        self.ended = max(self.ended, span.end_time_unix_nano)
        service = recorded.source.service
        head = (bool(span.parent_span_id), span.start_time_unix_nano, service, span.name)
        self.head = min(self.head or head, head)
        self.num_spans[service] += 1
        self.operations.add(TracedOperation(service, span.name, KINDS.get(span.kind, "")))
        self.num_errors += span.status.code == span.status.STATUS_CODE_ERROR
        self.num_bytes += recorded.num_bytes
        self.spans.append(recorded)


class SpanStore:
    """The latest traces, within limits on their number and their memory."""

    def __init__(self, *, max_traces: int, max_bytes: int) -> None:
        self._max_traces, self._max_bytes = max_traces, max_bytes
        self._max_trace_bytes = max_bytes // LARGEST_SHARE
        self._traces: OrderedDict[bytes, StoredTrace] = OrderedDict()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """The memory that all spans take, about."""
        return self._num_bytes

    def add(self, source: Source, scope: tuple[str, str], span: Span) -> bool:
        """Keep a span; False where its trace is as large as one may be. Older traces make room for
        it.
        """
        recorded = RecordedSpan.from_message(source, scope, span)
        trace = self._traces.get(span.trace_id)
        if (
            trace.num_bytes if trace is not None else 0
        ) + recorded.num_bytes > self._max_trace_bytes:
            return False
        if trace is None:
            trace = self._traces[span.trace_id] = StoredTrace(span.trace_id)
        trace.add(recorded, span)
        self._num_bytes += recorded.num_bytes
        self._traces.move_to_end(span.trace_id)
        while len(self._traces) > self._max_traces or self._num_bytes > self._max_bytes:
            _, oldest = self._traces.popitem(last=False)
            self._num_bytes -= oldest.num_bytes
        return True

    def get(self, trace_id: bytes) -> StoredTrace | None:
        """One trace, if it is here."""
        return self._traces.get(trace_id)

    def latest_first(self) -> Sequence[StoredTrace]:
        """All traces, by when they began."""
        return sorted(self._traces.values(), key=lambda trace: trace.started, reverse=True)

    def operations(self) -> Sequence[TracedOperation]:
        """What the services of the stored traces do, ordered, each once."""
        return sorted(
            {operation for trace in self._traces.values() for operation in trace.operations}
        )
