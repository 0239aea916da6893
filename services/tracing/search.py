"""Finds traces in the store."""

import asyncio
from collections.abc import Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.tracing.jaeger import span_tags
from services.tracing.query import Query
from services.tracing.spans import RecordedSpan, nanos_of
from services.tracing.store import SpanStore, StoredTrace
from services.tracing.tags import tags_of


async def find_traces(store: SpanStore, query: Query) -> Sequence[StoredTrace]:
    """The latest traces that the query asks for, latest first; spans are taken in meanwhile."""
    if query.trace_ids:
        named = (store.get(trace_id) for trace_id in query.trace_ids)
        return [trace for trace in named if trace is not None][: query.limit]
    found: list[StoredTrace] = []
    for trace in store.latest_first():
        if len(found) == query.limit:
            break
        if _may_match(trace, query) and any(_matches(recorded, query) for recorded in trace.spans):
            found.append(trace)
        await asyncio.sleep(0)
    return found


def _may_match(trace: StoredTrace, query: Query) -> bool:
    # Cheaper than to decode the spans, and for most traces enough.
    return (
        trace.ended >= query.started_from
        and trace.started <= query.started_to
        and trace.ended - trace.started >= query.min_nanos
        and any(
            query.service in ("", operation.service) and query.operation in ("", operation.name)
            for operation in trace.operations
        )
    )


def _matches(recorded: RecordedSpan, query: Query) -> bool:
    if query.service not in ("", recorded.source.service):
        return False
    span = recorded.decoded()
    return (
        query.operation in ("", span.name)
        and query.started_from <= span.start_time_unix_nano <= query.started_to
        and query.min_nanos <= nanos_of(span)
        and (query.max_nanos is None or nanos_of(span) <= query.max_nanos)
        and (not query.tags or query.tags.items() <= _searched(recorded, span))
    )


def _searched(recorded: RecordedSpan, span: Span) -> set[tuple[str, str]]:
    events = [tag for event in span.events for tag in tags_of(event.attributes)]
    return {
        (tag.key, tag.text) for tag in (*recorded.source.tags, *span_tags(recorded, span), *events)
    }
