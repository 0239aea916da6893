"""The spans of one request: `gateway.generate` in the client's trace, and the stages within it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from services.gateway.request_metrics import error_type
from services.runtime.tracing import context_from, current_traceparent, current_tracestate

_tracer = trace.get_tracer(__name__)


class RequestTrace:
    """Spans that are passed on by hand: a response stream is suspended between any two of its messages, where a
    current span would leak into whoever runs next."""

    def __init__(self, traceparent: str, tracestate: str) -> None:
        parent = context_from(traceparent, tracestate)
        self._span = _tracer.start_span("gateway.generate", parent, kind=SpanKind.SERVER)
        self._context = trace.set_span_in_context(self._span, parent)

    @property
    def traceparent(self) -> str:
        """What the router goes on with; empty for none."""
        return current_traceparent(self._context)

    @property
    def tracestate(self) -> str:
        """The `tracestate` beside `traceparent`."""
        return current_tracestate(self._context)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A span within the request's for as long as the block lasts."""
        span = _tracer.start_span(name, self._context)
        try:
            yield
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, error_type(error)))
            raise
        finally:
            span.end()

    def note(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Write something about the request."""
        self._span.set_attributes(attributes)

    def end(self, error: BaseException | None) -> None:
        """Close the request's span; with `error` where it did not end well."""
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, str(error)))
            self._span.set_attribute("error.type", error_type(error))
        self._span.end()
