"""A frame has a span where the step that sent it is sampled, and costs nothing where it is not."""

from pathlib import Path

import pytest
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.expert import spans
from tests.expert.expert_client import expert_service

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331"


async def test_frames_of_sampled_steps_alone_have_a_span(olmoe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("test"))
    traceparents = ["", f"{PARENT}-00", f"{PARENT}-01", f"{PARENT}-02", f"{PARENT}-03", "malformed" * 10, f"{PARENT}-"]
    async with expert_service(olmoe, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(2, 32)
        for number, traceparent in enumerate(traceparents):
            await stream.send(number, rows, [(0, 0)] * (number + 1), layer=2, traceparent=traceparent)
            await stream.reply()
    recorded = exporter.get_finished_spans()
    assert [span.attributes["moesaic.pairs"] for span in recorded if span.attributes] == [3, 5]
    for span in recorded:
        assert span.name == "expert.compute"
        assert span.parent is not None
        assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == PARENT[3:]
        assert span.attributes is not None
        assert (span.attributes["moesaic.layer"], span.attributes["moesaic.failed_pairs"]) == (2, 0)
    provider.shutdown()
