"""Trace contexts as strings."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_current_span

from services.runtime.tracing import context_from, current_traceparent, current_tracestate, is_sampled

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_without_a_span_the_strings_are_empty():
    assert current_traceparent() == ""
    assert current_tracestate() == ""
    assert not is_sampled()


def test_a_traceparent_survives_the_way_there_and_back():
    context = context_from(TRACEPARENT, "vendor=1")
    assert current_traceparent(context) == TRACEPARENT
    assert current_tracestate(context) == "vendor=1"
    assert is_sampled(context)


def test_an_unsampled_traceparent_stays_unsampled():
    assert not is_sampled(context_from(TRACEPARENT.removesuffix("01") + "00"))


def test_a_malformed_traceparent_is_no_span():
    assert not get_current_span(context_from("00-nonsense")).get_span_context().is_valid


def test_the_current_span_is_not_taken_for_an_empty_traceparent():
    with trace.use_span(get_current_span(context_from(TRACEPARENT))):
        assert current_traceparent() == TRACEPARENT
        assert current_traceparent(context_from("")) == ""


def test_a_span_under_a_remote_parent_is_in_its_trace():
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("child", context=context_from(TRACEPARENT)):
        version, trace_id, span_id, flags = current_traceparent().split("-")
    assert (version, trace_id, flags) == ("00", "0af7651916cd43dd8448eb211c80319c", "01")
    assert span_id != "b7ad6b7169203331"
