"""What is exported by OTLP comes back as Jaeger's JSON; what is no span is refused and said."""

import time
from typing import Any, NoReturn

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as OtlpStatus
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from services.runtime.channels import open_channel
from services.tracing.service import TraceService
from services.tracing.spans import Source
from services.tracing.store import SpanStore
from tests.tracing.tracing_client import Client, tracing_client

MOST_64 = (1 << 64) - 1
SECOND = 1_000_000_000
BEGAN = 1_700_000_000 * SECOND
TRACE_ID, PARENT_ID, OTHER_TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 0x1234
PARENT = set_span_in_context(
    NonRecordingSpan(SpanContext(TRACE_ID, PARENT_ID, is_remote=True, trace_flags=TraceFlags(1)))
)


def record_a_call(tracer: Tracer) -> None:
    """One span of a second with all that a span can have."""
    link = Link(SpanContext(OTHER_TRACE_ID, 0x5678, is_remote=True))
    attributes: dict[str, Any] = {
        "text": "a",
        "flag": True,
        "whole": 3,
        "part": 0.5,
        "not.a.number": float("nan"),
        "list": [1, 2],
    }
    span = tracer.start_span(
        "call", PARENT, SpanKind.CLIENT, attributes, links=[link], start_time=BEGAN
    )
    span.add_event("retried", {"attempt": 2}, timestamp=BEGAN + SECOND // 2)
    span.set_status(Status(StatusCode.ERROR, "it broke"))
    span.end(BEGAN + SECOND)


async def test_a_span_comes_back_as_jaeger_writes_it(client: Client) -> None:
    await client.export("router", record_a_call)
    (trace,) = await client.data(f"/api/traces/{TRACE_ID:032x}")
    (span,) = trace["spans"]
    assert trace["traceID"] == f"{TRACE_ID:032x}"
    assert trace["processes"] == {
        "p1": {
            "serviceName": "router",
            "tags": [{"key": "service.instance.id", "type": "string", "value": "router-1"}],
        }
    }
    assert span.pop("spanID")
    assert span == {
        "traceID": f"{TRACE_ID:032x}",
        "operationName": "call",
        "references": [
            {"refType": "CHILD_OF", "traceID": f"{TRACE_ID:032x}", "spanID": f"{PARENT_ID:016x}"},
            {
                "refType": "FOLLOWS_FROM",
                "traceID": f"{OTHER_TRACE_ID:032x}",
                "spanID": f"{0x5678:016x}",
            },
        ],
        "startTime": BEGAN // 1000,
        "duration": 1_000_000,
        "tags": [
            {"key": "text", "type": "string", "value": "a"},
            {"key": "flag", "type": "bool", "value": True},
            {"key": "whole", "type": "int64", "value": 3},
            {"key": "part", "type": "float64", "value": 0.5},
            {"key": "not.a.number", "type": "string", "value": "nan"},
            {"key": "list", "type": "string", "value": "[1, 2]"},
            {"key": "otel.scope.name", "type": "string", "value": "test"},
            {"key": "otel.scope.version", "type": "string", "value": "1.0"},
            {"key": "span.kind", "type": "string", "value": "client"},
            {"key": "otel.status_code", "type": "string", "value": "ERROR"},
            {"key": "error", "type": "bool", "value": True},
            {"key": "otel.status_description", "type": "string", "value": "it broke"},
        ],
        "logs": [
            {
                "timestamp": (BEGAN + SECOND // 2) // 1000,
                "fields": [
                    {"key": "event", "type": "string", "value": "retried"},
                    {"key": "attempt", "type": "int64", "value": 2},
                ],
            }
        ],
        "processID": "p1",
        "warnings": None,
    }


def message(*spans: Span) -> trace_service_pb2.ExportTraceServiceRequest:
    request = trace_service_pb2.ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend(spans)
    return request


def span(number: int, **fields: Any) -> Span:
    now = time.time_ns()
    ids = {"trace_id": number.to_bytes(16, "big"), "span_id": number.to_bytes(8, "big")}
    return Span(
        **{**ids, "name": "one", "start_time_unix_nano": now, "end_time_unix_nano": now, **fields}
    )


async def test_spans_without_valid_ids_are_counted_and_the_others_kept(client: Client) -> None:
    bad = [span(0), span(1, trace_id=b"short"), span(1, span_id=b"")]
    async with open_channel(f"127.0.0.1:{client.running.port}") as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        response = await stub.Export(message(*bad, span(7)), timeout=10)
    assert response.partial_success.rejected_spans == 3
    assert "3 spans without valid ids" in response.partial_success.error_message
    assert await client.data("/api/services") == ["unknown_service"]
    assert len(await client.data("/api/traces", limit="10")) == 1


def nested(depth: int) -> AnyValue:
    value = AnyValue(double_value=float("-inf"))
    for _ in range(depth):
        value = AnyValue(
            kvlist_value=KeyValueList(values=[KeyValue(key="\x00\x1b[2J", value=value)])
        )
    return value


ODD_SPANS: dict[str, dict[str, Any]] = {
    "times beyond all": {"start_time_unix_nano": MOST_64, "end_time_unix_nano": MOST_64},
    "an end before the start": {"end_time_unix_nano": 0},
    "no times": {"start_time_unix_nano": 0, "end_time_unix_nano": 0},
    "unknown enums": {"kind": 99, "status": OtlpStatus(code=99, message="\x1b[2J")},  # type: ignore[arg-type]
    "no name": {"name": "", "trace_state": ",=" * 999},
    "a parent that is none": {"parent_span_id": b"\xff"},
    "a link to nowhere": {"links": [Span.Link(trace_id=b"", span_id=b"x" * 99)]},
    "deep attributes": {"attributes": [KeyValue(key="deep", value=nested(20)), KeyValue()]},
    "all numbers": {"attributes": [KeyValue(key="least", value=AnyValue(int_value=-(1 << 63)))]},
    "odd events": {
        "events": [
            Span.Event(time_unix_nano=MOST_64, name="\x00", attributes=[KeyValue(value=nested(9))])
        ]
    },
}


async def test_spans_of_any_content_are_kept_and_keep_no_other_from_being_shown(
    client: Client,
) -> None:
    odd = [span(number, **fields) for number, fields in enumerate(ODD_SPANS.values(), 1)]
    async with open_channel(f"127.0.0.1:{client.running.port}") as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        response = await stub.Export(message(*odd, span(1000)), timeout=10)
    assert response.partial_success.rejected_spans == 0
    wide = {"start": "0", "end": "9" * 17, "limit": "100"}
    assert len(await client.data("/api/traces", **wide, tags='{"error": "true"}')) == 0
    for path in ("/api/traces", "/api/summaries"):
        assert {trace["traceID"] for trace in await client.data(path, **wide)} >= {f"{1000:032x}"}
    for number in (*range(1, len(odd) + 1), 1000):
        assert len(await client.data(f"/api/traces/{number:032x}")) == 1
    assert await client.data("/api/dependencies") == []


async def test_a_span_that_cannot_be_kept_is_counted_and_the_others_are_kept() -> None:
    class OddStore(SpanStore):
        def add(self, source: Source, scope: tuple[str, str], span: Span) -> bool:
            if span.name == "poison":
                raise KeyError("secret")
            return super().add(source, scope, span)

    store = OddStore(max_traces=9, max_bytes=1 << 20)
    request = message(span(1), span(2, name="poison"), span(3))
    response = await TraceService(store).Export(request, None)
    assert response.partial_success.rejected_spans == 1
    assert len(store.latest_first()) == 2


async def test_a_query_that_fails_unforeseen_is_a_document_and_the_next_one_is_answered(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(store: SpanStore) -> NoReturn:
        raise KeyError("secret")

    monkeypatch.setattr(SpanStore, "operations", failing)
    status, document = await client.get("/api/services")
    assert (status, document["errors"][0]["code"]) == (500, 500)
    assert "secret" not in document["errors"][0]["msg"]
    monkeypatch.undo()
    assert await client.data("/api/services") == []


async def test_what_is_no_message_is_the_callers_fault(client: Client) -> None:
    async with open_channel(f"127.0.0.1:{client.running.port}") as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await export(b"\xff\xff\xff", timeout=10)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_metrics_are_taken_so_that_exporters_do_not_complain(client: Client) -> None:
    async with open_channel(f"127.0.0.1:{client.running.port}") as channel:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        request = metrics_service_pb2.ExportMetricsServiceRequest()
        assert (
            await stub.Export(request, timeout=10)
            == metrics_service_pb2.ExportMetricsServiceResponse()
        )


async def test_a_trace_too_large_is_cut_and_the_exporter_told() -> None:
    async with tracing_client(max_bytes=1 << 20) as client:
        spans = [
            span(1, span_id=number.to_bytes(8, "big"), name="x" * 1000) for number in range(1, 501)
        ]
        async with open_channel(f"127.0.0.1:{client.running.port}") as channel:
            stub = trace_service_pb2_grpc.TraceServiceStub(channel)
            response = await stub.Export(message(*spans), timeout=10)
            (trace,) = await client.data("/api/traces")
        assert response.partial_success.rejected_spans == 500 - len(trace["spans"]) > 0
        assert client.running.store.num_bytes <= (1 << 20) // 4
