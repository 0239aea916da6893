"""One request over HTTP: its name, its trace, and the headers that its response has in any case."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web

from services.gateway.request_metrics import error_type
from services.runtime.span_writing import SpanKind, SpanRef
from services.runtime.tracing import OpenSpan, begin_span, passed_on

REQUEST_ID, IGNORED, TRACE = "X-Request-Id", "X-Moesaic-Ignored", "traceresponse"
# What is echoed: more could not stand in a header, or would fill a log.
SANE_NAME = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)


@dataclass
class Visit:
    """What is known of a request from its arrival on."""

    request_id: str
    span: OpenSpan | None
    # What the caller's trace goes on as; None where there is none.
    passed_on: SpanRef | None
    # What a response names: of a request that nobody traces, too.
    trace: SpanRef
    headers: dict[str, str] = field(default_factory=dict)
    # When all of it was there, by the monotonic clock in nanoseconds.
    arrived: int = 0

    @classmethod
    def begin(cls, request: web.BaseRequest) -> "Visit":
        """Of a request whose headers are there."""
        name = request.headers.get(REQUEST_ID, "")
        state = request.headers.get("tracestate", "")
        parent = SpanRef.parse(
            request.headers.get("traceparent", ""), state if state.isascii() else ""
        )
        span = begin_span("gateway.http", SpanKind.SERVER, parent)
        if span is not None:
            span.note({"http.request.method": request.method, "url.path": request.raw_path[:256]})
        goes_on = passed_on(span, parent)
        return cls(
            request_id=name if SANE_NAME.fullmatch(name) else uuid.uuid4().hex,
            span=span,
            passed_on=goes_on,
            trace=goes_on or SpanRef.root()._replace(is_sampled=False),
        )

    @property
    def trace_id(self) -> str:
        """In hexadecimal digits."""
        return self.trace.trace_id.hex()

    def name_ignored(self, names: Sequence[str]) -> None:
        """Say which fields nobody knows."""
        if names:
            self.headers[IGNORED] = ", ".join(names)

    def add_headers(self, response: web.StreamResponse, *, trace_url: str | None) -> None:
        """What its response has in any case."""
        response.headers[REQUEST_ID] = self.request_id
        response.headers[TRACE] = self.trace.traceparent
        if trace_url is not None:
            response.headers["Link"] = (
                f'<{trace_url.rstrip("/")}/trace/{self.trace_id}>; rel="trace"'
            )
        response.headers.update(self.headers)

    def end(self, status: int | None, error: BaseException | None) -> None:
        """It is over; with the `error` of ours, or of its leaving, that ended it."""
        if self.span is None:
            return
        if status is not None:
            self.span.note({"http.response.status_code": status})
        self.span.end(None if error is None else error_type(error))


VISIT = web.RequestKey("visit", Visit)
