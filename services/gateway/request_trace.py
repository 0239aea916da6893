"""The spans of one request: `gateway.generate` in the client's trace, and the stages within it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from services.gateway.request_metrics import RequestMetrics, error_type
from services.runtime.failures import aside
from services.runtime.span_writing import SpanKind, SpanRef
from services.runtime.tracing import OpenSpan, begin_span, passed_on


class RequestTrace:
    """Spans that are passed on by hand: a response stream is suspended between any two of its
    messages.
    """

    def __init__(self, traceparent: str, tracestate: str) -> None:
        parent = SpanRef.parse(traceparent, tracestate)
        self._span = begin_span("gateway.generate", SpanKind.SERVER, parent)
        self._relay: OpenSpan | None = None
        self._num_output = 0
        # Where nothing is recorded of it here; what is gets a span to go on below when it is
        # relayed.
        self._passed_on = passed_on(None, parent) if self._span is None else None

    @property
    def response(self) -> SpanRef | None:
        """What its client may look for; None where nothing was passed on, or is recorded here."""
        return self._passed_on if self._span is None else self._span.span

    @property
    def traceparent(self) -> str:
        """What the router goes on with; empty for none."""
        return "" if self._passed_on is None else self._passed_on.traceparent

    @property
    def tracestate(self) -> str:
        """The `tracestate` beside `traceparent`."""
        return "" if self._passed_on is None else self._passed_on.tracestate

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A span within the request's for as long as the block lasts."""
        span = None if self._span is None else self._span.child(name)
        try:
            yield
        except BaseException as error:
            if span is not None:
                span.end(error_type(error))
            raise
        if span is not None:
            span.end()

    def begin_relay(self) -> None:
        """From here on the request is the router's: `traceparent` names the call to it, which ends
        with the request.
        """
        if self._span is not None:
            self._relay = self._span.child("gateway.relay", SpanKind.CLIENT)
            self._passed_on = self._relay.span

    def count_output(self, num_tokens: int) -> int:
        """So many tokens were generated; with those before how many."""
        self._num_output += num_tokens
        return self._num_output

    def note(self, attributes: Mapping[str, str | int]) -> None:
        """Write something about the request."""
        if self._span is not None:
            self._span.note(attributes)

    def end(self, error: BaseException | None) -> None:
        """Close the request's spans; with `error` where it did not end well."""
        if self._span is None:
            return
        if self._relay is not None:
            self._relay.end(None if error is None else error_type(error))
        if error is None:
            self._span.end()
        else:
            self._span.note({"error.type": error_type(error)})
            self._span.end(str(error))


@contextmanager
def observed(metrics: RequestMetrics, trace: RequestTrace) -> Iterator[None]:
    """Tell how the request of this block ended."""
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        with aside("observing a request"):
            metrics.record_end(failure)
            if metrics.first_token_nanos is not None:
                trace.note({"moesaic.first_token_nanos": metrics.first_token_nanos})
            trace.end(failure)
