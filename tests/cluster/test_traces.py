"""One trace from the client's traceparent down to layer and service, and communication times that add up."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from moesaic.v1 import common_pb2
from services.expert import spans as expert_spans
from services.gateway import request_trace
from services.router import engine
from services.runtime.channels import open_channel
from tests.cluster import local
from tests.gateway.gateway_client import Client

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"),)
NUM_LAYERS, NEW_TOKENS = 3, 4


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Every span of the three services; a provider for the whole process would stay with the tests after these."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(request_trace, "_tracer", tracer)
    monkeypatch.setattr(engine, "tracer", tracer)
    monkeypatch.setattr(expert_spans, "_tracer", tracer)
    yield exporter
    provider.shutdown()


async def spans_of(olmoe: Path, exporter: InMemorySpanExporter, **fields: object) -> list[ReadableSpan]:
    async with local.cluster(olmoe) as cluster, open_channel(cluster.gateway) as channel:
        exporter.clear()
        request = {"stop": common_pb2.StopConditions(max_new_tokens=NEW_TOKENS, ignore_eos=True)} | fields
        await Client(channel, cluster.gateway).complete("the gate", metadata=SAMPLED, **request)
    return [span for span in exporter.get_finished_spans() if f"{span.context.trace_id:032x}" == TRACE_ID]


def named(spans: list[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


async def test_a_trace_reaches_from_the_client_to_every_layer_and_service(
    olmoe: Path, exporter: InMemorySpanExporter
) -> None:
    spans = await spans_of(olmoe, exporter)
    by_id = {span.context.span_id: span for span in spans}
    (generate,) = named(spans, "gateway.generate")
    assert f"{generate.parent.span_id:016x}" == "b7ad6b7169203331"
    steps = named(spans, "router.step")
    assert len(steps) == NEW_TOKENS  # the prefill draws the first token
    layers = named(spans, "router.layer")
    assert len(layers) == NEW_TOKENS * NUM_LAYERS
    assert all(by_id[layer.parent.span_id].name == "router.step" for layer in layers)
    for part in ("gate", "scatter", "gather", "combine"):
        assert len(named(spans, f"router.{part}")) == len(layers)
    calls, computes = named(spans, "router.expert"), named(spans, "expert.compute")
    assert calls
    assert sorted(by_id[compute.parent.span_id].context.span_id for compute in computes) == sorted(
        call.context.span_id for call in calls
    )
    for layer in layers:
        asked = [call.attributes["server.address"] for call in calls if call.parent.span_id == layer.context.span_id]
        assert layer.attributes["moesaic.straggler"] in asked
    for call in calls:
        parts = sum(call.attributes[f"moesaic.{part}_nanos"] for part in ("encode", "wire", "queue", "compute"))
        assert parts == call.end_time - call.start_time


async def test_the_request_says_how_deep_its_trace_goes(olmoe: Path, exporter: InMemorySpanExporter) -> None:
    spans = await spans_of(olmoe, exporter, trace_detail=common_pb2.TRACE_DETAIL_STEP)
    assert len(named(spans, "router.step")) == NEW_TOKENS
    assert not named(spans, "router.layer")
    spans = await spans_of(olmoe, exporter, trace_detail=common_pb2.TRACE_DETAIL_REQUEST)
    assert not named(spans, "router.step")
    assert named(spans, "gateway.generate")
