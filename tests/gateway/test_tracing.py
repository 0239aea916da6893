"""A request's spans lie in its client's trace, and the router goes on in it."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.gateway import request_trace
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=1")]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(request_trace, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_the_stages_are_children_of_the_request_in_the_clients_trace(spans: InMemorySpanExporter) -> None:
    router = RouterDouble(answer=[5, 6])
    async with running_gateway(router) as client:
        await client.complete(metadata=METADATA)
        asked = await router.next_sequence()
    found = by_name(spans)
    request = found.pop("gateway.generate")
    assert found.keys() == {"gateway.tokenise", "gateway.admit", "gateway.queue"}
    assert request.parent is not None
    assert (request.kind, f"{request.parent.span_id:016x}") == (SpanKind.SERVER, PARENT)
    assert all(span.parent == request.context for span in found.values())
    assert {f"{span.context.trace_id:032x}" for span in (request, *found.values())} == {TRACE}
    assert request.attributes is not None
    assert request.attributes["gen_ai.usage.output_tokens"] == 2
    assert asked.trace.traceparent == f"00-{TRACE}-{request.context.span_id:016x}-01"
    assert asked.trace.tracestate == "vendor=1"


async def test_a_failed_request_says_so_in_its_span(spans: InMemorySpanExporter) -> None:
    async with running_gateway(RouterDouble()) as client:
        await client.refused("")
    (request,) = spans.get_finished_spans()
    assert not request.status.is_ok
    assert request.attributes is not None
    assert request.attributes["error.type"] == "INVALID_ARGUMENT"


async def test_without_tracing_the_clients_context_is_passed_on_unchanged() -> None:
    router = RouterDouble(answer=[5])
    async with running_gateway(router) as client:
        await client.complete(metadata=METADATA)
        await client.complete(metadata=[("traceparent", "nonsense")])
        first, second = await router.next_sequence(), await router.next_sequence()
    assert first.trace.traceparent == METADATA[0][1]
    assert second.trace.traceparent == ""
