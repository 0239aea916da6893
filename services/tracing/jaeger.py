"""A stored trace as Jaeger's query API writes it, by OpenTelemetry's mapping to Jaeger."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from services.tracing.spans import KINDS, NANOS_PER_MICRO, RecordedSpan, Source, nanos_of
from services.tracing.store import StoredTrace
from services.tracing.tags import Tag, string_tag, tags_of

Document = dict[str, Any]


def trace_document(trace: StoredTrace) -> Document:
    """One trace: its spans by their start, and the processes that they name."""
    processes: dict[Source, str] = {}
    spans = []
    for recorded in trace.spans:
        process_id = processes.setdefault(recorded.source, f"p{len(processes) + 1}")
        spans.append(_span_document(recorded, process_id))
    return {
        "traceID": trace.trace_id.hex(),
        "spans": sorted(spans, key=lambda span: (span["startTime"], -span["duration"])),
        "processes": {
            process_id: _process_document(source) for source, process_id in processes.items()
        },
        "warnings": None,
    }


def span_tags(recorded: RecordedSpan, span: Span) -> list[Tag]:
    """The span's attributes, and as tags besides what Jaeger's spans have no field for."""
    tags = tags_of(span.attributes)
    name, version = recorded.scope
    extra = {
        "otel.scope.name": name,
        "otel.scope.version": version,
        "w3c.tracestate": span.trace_state,
    }
    tags += [string_tag(key, value) for key, value in extra.items() if value]
    if span.kind in KINDS:
        tags.append(string_tag("span.kind", KINDS[span.kind]))
    if span.status.code != Status.STATUS_CODE_UNSET:
        is_error = span.status.code == Status.STATUS_CODE_ERROR
        tags.append(string_tag("otel.status_code", "ERROR" if is_error else "OK"))
        if is_error:
            tags.append(Tag("error", "bool", True))
    if span.status.message:
        tags.append(string_tag("otel.status_description", span.status.message))
    return tags


def _span_document(recorded: RecordedSpan, process_id: str) -> Document:
    span = recorded.decoded()
    return {
        "traceID": span.trace_id.hex(),
        "spanID": span.span_id.hex(),
        "operationName": span.name,
        "references": _references(span),
        "startTime": span.start_time_unix_nano // NANOS_PER_MICRO,
        "duration": nanos_of(span) // NANOS_PER_MICRO,
        "tags": _documents(span_tags(recorded, span)),
        "logs": [_log(event) for event in span.events],
        "processID": process_id,
        "warnings": None,
    }


def _references(span: Span) -> list[Document]:
    parents = [("CHILD_OF", span.trace_id, span.parent_span_id)] if span.parent_span_id else []
    links = [("FOLLOWS_FROM", link.trace_id, link.span_id) for link in span.links]
    return [
        {"refType": kind, "traceID": trace_id.hex(), "spanID": span_id.hex()}
        for kind, trace_id, span_id in (*parents, *links)
    ]


def _log(event: Span.Event) -> Document:
    fields = [string_tag("event", event.name), *tags_of(event.attributes)]
    return {"timestamp": event.time_unix_nano // NANOS_PER_MICRO, "fields": _documents(fields)}


def _process_document(source: Source) -> Document:
    return {"serviceName": source.service, "tags": _documents(source.tags)}


def _documents(tags: Sequence[Tag]) -> list[Document]:
    return [tag.document() for tag in tags]
