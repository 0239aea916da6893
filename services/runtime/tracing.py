"""Trace contexts as the W3C strings that travel in messages and metadata."""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def current_traceparent(context: Context | None = None) -> str:
    """The W3C `traceparent` of `context` (by default the current one); empty where there is no span."""
    return _carrier(context).get("traceparent", "")


def current_tracestate(context: Context | None = None) -> str:
    """The W3C `tracestate` of `context` (by default the current one); empty where there is none."""
    return _carrier(context).get("tracestate", "")


def context_from(traceparent: str, tracestate: str = "") -> Context:
    """The context that a `traceparent` names; one without a span where it is empty or malformed."""
    return _PROPAGATOR.extract({"traceparent": traceparent, "tracestate": tracestate}, context=Context())


def is_sampled(context: Context | None = None) -> bool:
    """Whether spans of `context` (by default the current one) are recorded somewhere."""
    return trace.get_current_span(context).get_span_context().trace_flags.sampled


def _carrier(context: Context | None) -> dict[str, str]:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context)
    return carrier
