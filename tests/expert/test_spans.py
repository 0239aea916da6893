"""A frame has a span where the step that sent it is sampled, and costs nothing where it is not."""

from pathlib import Path

import torch
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.expert.expert_client import Carrier, expert_service
from tests.recorded_spans import PARENT_ID, TRACE_ID, attributes_of, recorded_spans

PARENT = f"00-{TRACE_ID}-{PARENT_ID}"


async def test_frames_of_sampled_steps_alone_have_a_span(olmoe: Path, carrier: Carrier) -> None:
    traceparents = [
        "",
        f"{PARENT}-00",
        f"{PARENT}-01",
        f"{PARENT}-02",
        f"{PARENT}-03",
        "malformed" * 10,
        f"{PARENT}-",
    ]
    with recorded_spans() as recorded:
        async with expert_service(olmoe, carrier, preload="all") as service:
            stream, rows = service.open_stream(), torch.randn(2, 32)
            for number, traceparent in enumerate(traceparents):
                await stream.send(
                    number, rows, [(0, 0)] * (number + 1), layer=2, traceparent=traceparent
                )
                await stream.reply()
    assert [attributes_of(span)["moesaic.pairs"] for span in recorded.spans] == [3, 5]
    for span in recorded.spans:
        assert (span.name, span.kind) == ("expert.compute", Span.SPAN_KIND_SERVER)
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
        told = attributes_of(span)
        assert (told["moesaic.layer"], told["moesaic.failed_pairs"]) == (2, 0)


async def test_a_span_says_what_its_frame_took(olmoe: Path, carrier: Carrier) -> None:
    with recorded_spans() as recorded:
        async with expert_service(olmoe, carrier, preload="all") as service:
            stream, rows = service.open_stream(), torch.randn(2, 32)
            await stream.send(0, rows, [(0, 1), (1, 2), (1, 3)], traceparent=f"{PARENT}-01")
            timings = (await stream.reply()).timings
    (span,) = recorded.spans
    attributes = attributes_of(span)
    assert int(attributes.pop("moesaic.bytes")) > rows.nbytes
    assert attributes == {
        "moesaic.layer": 1,
        "moesaic.rows": 2,
        "moesaic.pairs": 3,
        "moesaic.decode_nanos": timings.decode_nanos,
        "moesaic.queue_nanos": timings.queue_nanos,
        "moesaic.compute_nanos": timings.compute_nanos,
        "moesaic.encode_nanos": timings.encode_nanos,
        "moesaic.batch_frames": 1,
        "moesaic.failed_pairs": 0,
    }
    took = sum(int(value) for name, value in attributes.items() if name.endswith("_nanos"))
    assert span.end_time_unix_nano - span.start_time_unix_nano == took
