"""Trace contexts as strings, and spans as a collector reads them."""

import subprocess
import sys

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)

from services.runtime.span_writing import SpanKind, SpanRef, encode_request, encode_span
from services.runtime.tracing import Recorder, begin_span, passed_on, recording_with
from tests.recorded_spans import PARENT_ID, TRACE_ID, TRACEPARENT, attributes_of, recorded_spans

PARENT = SpanRef.parse(TRACEPARENT, "vendor=1") or SpanRef.root()


def decoded(encoded: bytes) -> Span:
    (span,) = ScopeSpans.FromString(encoded).spans
    return span


def test_a_traceparent_survives_the_way_there_and_back() -> None:
    assert (PARENT.traceparent, PARENT.tracestate, PARENT.is_sampled) == (
        TRACEPARENT,
        "vendor=1",
        True,
    )
    child = PARENT.child()
    assert child.traceparent != TRACEPARENT
    assert (child.trace_id, child.tracestate) == (PARENT.trace_id, "vendor=1")


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)]
)
def test_the_last_bit_of_the_flags_says_whether_it_is_sampled(flags: str, is_sampled: bool) -> None:
    parsed = SpanRef.parse(f"00-{TRACE_ID}-{PARENT_ID}-{flags}")
    assert parsed is not None
    assert parsed.is_sampled is is_sampled
    assert parsed.traceparent == f"00-{TRACE_ID}-{PARENT_ID}-{int(is_sampled):02x}"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00-nonsense",
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-01-more",
        f"00-{TRACE_ID.upper()}-{PARENT_ID}-01",
        f"{TRACEPARENT}\n",
    ],
)
def test_a_malformed_traceparent_is_no_span(traceparent: str) -> None:
    assert SpanRef.parse(traceparent) is None


def test_a_later_version_may_say_more() -> None:
    assert SpanRef.parse(f"01-{TRACE_ID}-{PARENT_ID}-01-more") == SpanRef.parse(TRACEPARENT)


# Around the lengths and values at which the encoding takes a byte more.
@pytest.mark.parametrize("size", [0, 1, 30, 127, 128, 300, 20_000])
def test_what_is_written_is_what_a_collector_reads(size: int) -> None:
    span, link, word = PARENT.child(), SpanRef.root(), "ä" * (size // 2) + "x" * (size % 2)
    numbers = {f"moesaic.{power}": (1 << power) - 1 for power in range(1, 64)}
    attributes: dict[str, str | int] = {"word": word, **numbers}
    read = decoded(
        encode_span(
            "name", SpanKind.CLIENT, span, b"p" * 8, 5, 7, attributes, (link, PARENT), error=word
        )
    )
    assert (read.trace_id, read.span_id, read.parent_span_id) == (
        PARENT.trace_id,
        span.span_id,
        b"p" * 8,
    )
    assert (read.name, read.kind, read.trace_state) == ("name", Span.SPAN_KIND_CLIENT, "vendor=1")
    assert (read.start_time_unix_nano, read.end_time_unix_nano) == (5, 7)
    assert attributes_of(read) == attributes
    assert [(one.trace_id, one.span_id) for one in read.links] == [
        (link.trace_id, link.span_id),
        (PARENT.trace_id, PARENT.span_id),
    ]
    assert read.status == Status(message=word, code=Status.STATUS_CODE_ERROR)


@pytest.mark.parametrize("value", [1 << 63, 1 << 64, 3 << 64])
def test_a_number_beyond_what_there_are_numbers_for_breaks_no_message(value: int) -> None:
    encoded = encode_span("one", SpanKind.CLIENT, SpanRef.root(), b"", 1, 2, {"nanos": value})
    (read,) = ScopeSpans.FromString(encoded).spans
    assert attributes_of(read) == {"nanos": (1 << 63) - 1}


@pytest.mark.parametrize("num_spans", [0, 1, 3, 400])
def test_a_request_holds_all_spans_of_the_process(num_spans: int) -> None:
    names = [str(number) for number in range(num_spans)]
    spans = [encode_span(name, SpanKind.CLIENT, PARENT, b"", 5, 7) for name in names]
    host = KeyValue(key="host.name", value=AnyValue(string_value="a"))
    resource = Resource(attributes=[host])
    read = ExportTraceServiceRequest.FromString(
        encode_request(resource.SerializeToString(), "scope", spans)
    )
    of_scope = ScopeSpans(
        scope=InstrumentationScope(name="scope"), spans=[decoded(span) for span in spans]
    )
    of_process = ResourceSpans(resource=resource, scope_spans=[of_scope])
    assert read == ExportTraceServiceRequest(resource_spans=[of_process])


def test_a_clock_that_was_set_back_makes_a_span_short_not_negative() -> None:
    read = decoded(encode_span("name", SpanKind.INTERNAL, PARENT, b"", 9, 7))
    assert (read.start_time_unix_nano, read.end_time_unix_nano) == (9, 9)
    assert not read.HasField("status")


def test_without_a_recorder_there_is_no_span() -> None:
    assert begin_span("first", SpanKind.SERVER) is None


@pytest.mark.parametrize(
    ("sampler", "first", "below_sampled", "below_unsampled"),
    [
        (ALWAYS_ON, True, True, True),
        (ALWAYS_OFF, False, False, False),
        (DEFAULT_ON, True, True, False),
        (DEFAULT_OFF, False, True, False),
        (TraceIdRatioBased(1.0), True, True, True),
        (ParentBasedTraceIdRatio(0.0), False, True, False),
    ],
)
def test_the_sampler_decides_as_the_specification_has_it(
    sampler: Sampler, first: bool, below_sampled: bool, below_unsampled: bool
) -> None:
    unsampled = SpanRef.parse(f"00-{TRACE_ID}-{PARENT_ID}-00", "vendor=1")
    with recording_with(Recorder(lambda _: None, sampler)):
        for parent, is_recorded in (
            (None, first),
            (PARENT, below_sampled),
            (unsampled, below_unsampled),
        ):
            span = begin_span("name", SpanKind.SERVER, parent)
            assert (span is not None) is is_recorded
            told = passed_on(span, parent)
            assert told is not None
            assert told.is_sampled is is_recorded
            if parent is not None:
                assert (told.trace_id, told.tracestate) == (parent.trace_id, "vendor=1")


def test_where_nobody_records_a_context_is_passed_on_as_it_came() -> None:
    assert passed_on(None, PARENT) == PARENT
    assert passed_on(None, None) is None


def test_no_text_and_no_number_ends_what_is_traced() -> None:
    half = "a\ud800"
    attributes: dict[str, str | int] = {"text": half, "number": -5, "less": -(1 << 64), "yes": True}
    parent = SpanRef.parse(TRACEPARENT, half)
    assert parent is not None
    read = decoded(encode_span("name", SpanKind.CLIENT, parent, b"", 5, 7, attributes, error=half))
    assert (read.status.message, read.trace_state) == ("a?", "a?")
    assert attributes_of(read) == {"text": "a?", "number": -5, "less": -(1 << 63), "yes": 1}


def test_spans_lie_within_one_another() -> None:
    with recorded_spans() as recorded:
        first = begin_span("first", SpanKind.SERVER)
        assert first is not None
        first.child("second").end()
        first.end()
    second, first_read = recorded.spans
    assert (second.parent_span_id, first_read.parent_span_id) == (first_read.span_id, b"")


def test_forked_processes_name_their_spans_apart() -> None:
    program = (
        "import os, sys\n"
        "from services.runtime.span_writing import new_span_id\n"
        "new_span_id()\n"
        "child = os.fork()\n"
        "os.write(1, new_span_id().hex().encode() + b' ')\n"
        "sys.exit(os.waitpid(child, 0)[1] if child else 0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    of_one, of_other = ran.stdout.split()
    assert of_one != of_other
