"""A trace read from Jaeger's JSON: spans as a tree, and the processes that recorded them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from services.wire.errors import InvalidRequest

TagValue = str | bool | int | float | None
# As many as any request of ours has; a file of more is not read into memory span by span.
MAX_SPANS = 1_000_000


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its service, and what tells it from others of the service; empty where nothing
    does.
    """

    process_id: str
    service: str
    instance: str


@dataclass(frozen=True, slots=True)
class Span:
    """One span; times are microseconds, the start since 1970. `position` is its own among the
    trace's spans.
    """

    span_id: str
    parent_id: str | None
    links: tuple[tuple[str, str], ...]
    name: str
    process: Process
    started: int
    duration: int
    tags: Mapping[str, TagValue]
    position: int = 0

    @property
    def ended(self) -> int:
        return self.started + self.duration

    @property
    def is_error(self) -> bool:
        return self.tags.get("error") in (True, "true")

    def number(self, key: str) -> int | None:
        """The tag where it is a whole number."""
        value = self.tags.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str:
        """The tag as a text; empty where it is missing."""
        return str(self.tags.get(key, ""))


@dataclass(frozen=True)
class Trace:
    """All spans of one trace, by their start; a span whose parent is not here is a root. Each span
    is below one other at most, whatever the document says.
    """

    trace_id: str
    spans: Sequence[Span]
    document: Mapping[str, Any]
    roots: Sequence[Span]
    _children: Sequence[Sequence[Span]] = field(repr=False)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Trace":
        """The trace of Jaeger's JSON; raises InvalidRequest for anything else."""
        try:
            read = _Trace.model_validate(document)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise InvalidRequest(
                f"this is no trace in Jaeger's JSON: {where}: {problem['msg']}"
            ) from error
        spans = sorted(_spans(read), key=lambda span: (span.started, -span.duration))
        spans = [replace(span, position=position) for position, span in enumerate(spans)]
        if not spans:
            raise InvalidRequest("the trace has no spans")
        roots: list[Span] = []
        children: list[list[Span]] = [[] for _ in spans]
        for span, parent in zip(spans, _parents(spans), strict=True):
            (roots if parent is None else children[parent.position]).append(span)
        return cls(read.trace_id, spans, document, roots, children)

    @property
    def started(self) -> int:
        return self.spans[0].started

    @property
    def ended(self) -> int:
        return max(span.ended for span in self.spans)

    def children(self, span: Span) -> Sequence[Span]:
        return self._children[span.position]

    def named(self, name: str) -> Sequence[Span]:
        """The spans of a name, by their start."""
        return [span for span in self.spans if span.name == name]


class _Tag(BaseModel):
    key: str
    value: TagValue = None


class _Reference(BaseModel):
    kind: str = Field(alias="refType")
    trace_id: str = Field(alias="traceID")
    span_id: str = Field(alias="spanID")


class _Span(BaseModel):
    span_id: str = Field(alias="spanID")
    name: str = Field(alias="operationName")
    references: list[_Reference] | None = None
    started: int = Field(alias="startTime", ge=0)
    duration: int = Field(ge=0)
    tags: list[_Tag] | None = None
    process_id: str = Field(alias="processID")


class _Process(BaseModel):
    service: str = Field(alias="serviceName")
    tags: list[_Tag] | None = None


class _Trace(BaseModel):
    trace_id: str = Field(alias="traceID")
    spans: list[_Span] = Field(max_length=MAX_SPANS)
    processes: dict[str, _Process]


def _spans(read: _Trace) -> Iterator[Span]:
    processes = {name: _process(name, one) for name, one in read.processes.items()}
    for one in read.spans:
        references = one.references or []
        parents = [
            ref.span_id
            for ref in references
            if ref.kind == "CHILD_OF" and ref.trace_id == read.trace_id
        ]
        yield Span(
            span_id=one.span_id,
            parent_id=parents[0] if parents else None,
            links=tuple(
                (ref.trace_id, ref.span_id) for ref in references if ref.kind == "FOLLOWS_FROM"
            ),
            name=one.name,
            process=processes.get(one.process_id) or Process(one.process_id, one.process_id, ""),
            started=one.started,
            duration=one.duration,
            tags={tag.key: tag.value for tag in one.tags or ()},
        )


def _process(process_id: str, read: _Process) -> Process:
    tags = {tag.key: str(tag.value) for tag in read.tags or ()}
    return Process(process_id, read.service, tags.get("service.instance.id", ""))


def _parents(spans: Sequence[Span]) -> list[Span | None]:
    """The span above each; of several spans of one id the first. What a file says need not be a
    tree: of spans in a circle the first has none.
    """
    first: dict[str, Span] = {}
    for span in spans:
        first.setdefault(span.span_id, span)
    parents = [None if span.parent_id is None else first.get(span.parent_id) for span in spans]
    ends = [False] * len(spans)  # whether it is known that the way up from there does
    for span in spans:
        way: dict[int, None] = {}
        one: Span | None = span
        while one is not None and not ends[one.position] and one.position not in way:
            way[one.position] = None
            one = parents[one.position]
        if one is not None and one.position in way:
            passed = [*way]
            parents[min(passed[passed.index(one.position) :])] = None
        for position in way:
            ends[position] = True
    return parents
