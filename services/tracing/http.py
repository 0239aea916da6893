"""Jaeger's query API and the page, over HTTP."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from aiohttp import web

from services.runtime.failures import failure_of
from services.tracing.calls import Calls, find_calls
from services.tracing.jaeger import trace_document
from services.tracing.query import Query, trace_id_in, whole_number_in
from services.tracing.reading import reading_document
from services.tracing.search import find_traces
from services.tracing.store import SpanStore, StoredTrace
from services.tracing.summary import summary_document
from services.wire.errors import InvalidRequest, NotFound

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NANOS_PER_MILLI = 1_000_000
# Of a search the traces beyond that many spans are left out: as JSON a span takes a kilobyte.
MAX_ANSWER_SPANS = 100_000
STATUSES = {InvalidRequest: 400, NotFound: 404}
PAGE = "page.html"
PAGE_TYPES = {".css": "text/css", ".js": "text/javascript"}
# The page asks this service only, and shows what strangers wrote into spans.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src data:; style-src 'self'; script-src 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
}


def query_app(store: SpanStore, *, max_answer_spans: int = MAX_ANSWER_SPANS) -> web.Application:
    """The HTTP application that shows what is in the store."""
    api = QueryApi(store, max_answer_spans)
    app = web.Application(middlewares=[_errors_to_documents])
    app.add_routes(
        [
            web.get("/", _page),
            web.get("/page/{name}", _page_file),
            web.get("/trace/{trace_id}", _page),  # as Jaeger's links to a trace are
            web.get("/search", _page),
            web.get("/api/services", api.services),
            web.get("/api/services/{service}/operations", api.operation_names),
            web.get("/api/operations", api.operations),
            web.get("/api/traces", api.traces),
            web.get("/api/traces/{trace_id}", api.trace),
            web.get("/api/readings/{trace_id}", api.reading),
            web.get("/api/summaries", api.summaries),
            web.get("/api/dependencies", api.dependencies),
        ]
    )
    return app


class QueryApi:
    """Answers as Jaeger's query service does; `/api/summaries` is its search with only what a list
    shows.
    """

    def __init__(self, store: SpanStore, max_answer_spans: int) -> None:
        self._store = store
        self._max_answer_spans = max_answer_spans

    async def services(self, request: web.Request) -> web.Response:
        return _answer(sorted({operation.service for operation in self._store.operations()}))

    async def operation_names(self, request: web.Request) -> web.Response:
        service = request.match_info["service"]
        return _answer(
            sorted({one.name for one in self._store.operations() if one.service == service})
        )

    async def operations(self, request: web.Request) -> web.Response:
        service, kind = request.query.get("service", ""), request.query.get("spanKind", "")
        if not service:
            raise InvalidRequest("service is required")
        return _answer(
            [
                {"name": one.name, "spanKind": one.kind}
                for one in self._store.operations()
                if one.service == service and kind in ("", one.kind)
            ]
        )

    async def traces(self, request: web.Request) -> web.Response:
        found = await find_traces(self._store, Query.from_parameters(request.query, time.time_ns()))
        return await _answer_traces([*_within_limit(found, self._max_answer_spans)])

    async def summaries(self, request: web.Request) -> web.Response:
        found = await find_traces(self._store, Query.from_parameters(request.query, time.time_ns()))
        # It decodes every span: others are received meanwhile.
        return _answer([await asyncio.to_thread(summary_document, trace) for trace in found])

    async def trace(self, request: web.Request) -> web.Response:
        return await _answer_traces([self._named(request)])

    async def reading(self, request: web.Request) -> web.Response:
        document = await asyncio.to_thread(reading_document, self._named(request))
        return _answer([document])

    def _named(self, request: web.Request) -> StoredTrace:
        trace = self._store.get(trace_id_in(request.match_info["trace_id"]))
        if trace is None:
            raise NotFound("trace not found")
        return trace

    async def dependencies(self, request: web.Request) -> web.Response:
        now_millis = time.time_ns() // NANOS_PER_MILLI
        end = whole_number_in(request.query.get("endTs", "") or str(now_millis), "endTs")
        lookback = whole_number_in(request.query.get("lookback", "") or str(now_millis), "lookback")
        edges = await find_calls(
            self._store, (end - lookback) * NANOS_PER_MILLI, end * NANOS_PER_MILLI
        )
        return _answer([_edge_document(*edge, calls) for edge, calls in sorted(edges.items())])


def _edge_document(parent: str, child: str, calls: Calls) -> dict[str, Any]:
    median, slow = calls.quantiles(0.5, 0.99)
    return {
        "parent": parent,
        "child": child,
        "callCount": len(calls.micros),
        "p50": median,
        "p99": slow,
        "errors": calls.num_errors,
    }


def _answer(data: list[Any]) -> web.Response:
    return web.json_response(_document(data))


async def _answer_traces(traces: Sequence[StoredTrace]) -> web.Response:
    # Seconds for the largest: spans are received meanwhile.
    text = await asyncio.to_thread(
        lambda: json.dumps(_document([trace_document(trace) for trace in traces]))
    )
    return web.Response(text=text, content_type="application/json")


def _within_limit(traces: Sequence[StoredTrace], max_spans: int) -> Iterator[StoredTrace]:
    num_spans = 0
    for trace in traces:
        num_spans += len(trace.spans)
        if num_spans > max_spans and trace is not traces[0]:
            return
        yield trace


def _document(data: list[Any]) -> dict[str, Any]:
    return {"data": data, "total": len(data), "limit": 0, "offset": 0, "errors": None}


async def _page(request: web.Request) -> web.Response:
    return _file(PAGE, "text/html")


async def _page_file(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    known = {one.name for one in resources.files("services.tracing.page").iterdir()}
    kind = PAGE_TYPES.get(PurePosixPath(name).suffix)
    if kind is None or name not in known:
        raise web.HTTPNotFound
    return _file(name, kind)


def _file(name: str, kind: str) -> web.Response:
    text = resources.files("services.tracing.page").joinpath(name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=kind, headers=PAGE_HEADERS)


@web.middleware
async def _errors_to_documents(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:  # aiohttp's own: no such page, say
        raise
    except Exception as error:  # noqa: BLE001 -- the boundary of HTTP: whatever it is becomes a document
        failure = failure_of(error, "the query")
        code = STATUSES.get(type(failure), 500)
        errors = [{"code": code, "msg": str(failure)}]
        document = {"data": None, "total": 0, "limit": 0, "offset": 0, "errors": errors}
        return web.json_response(document, status=code)
