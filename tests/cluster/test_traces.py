"""One trace from the client's traceparent down to layer and service, and communication times that
add up.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from moesaic.v1 import common_pb2
from services.runtime.channels import open_channel
from tests.cluster import local
from tests.gateway.gateway_client import Client
from tests.recorded_spans import (
    PARENT_ID,
    TRACE_ID,
    TRACEPARENT,
    RecordedSpans,
    attributes_of,
    recorded_spans,
)

SAMPLED = (("traceparent", TRACEPARENT),)
NUM_LAYERS, NEW_TOKENS = 3, 4
PARTS = ("encode", "wire", "decode", "queue", "compute")
INTERNAL, SERVER, CLIENT = Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
# Each span's name, kind and parent's name; the first one's parent is the client's.
TREE = {
    ("gateway.generate", SERVER, ""),
    ("gateway.tokenise", INTERNAL, "gateway.generate"),
    ("gateway.admit", INTERNAL, "gateway.generate"),
    ("gateway.queue", INTERNAL, "gateway.generate"),
    ("gateway.relay", CLIENT, "gateway.generate"),
    ("router.sequence", SERVER, "gateway.relay"),
    ("router.step", INTERNAL, "router.sequence"),
    ("router.layer", INTERNAL, "router.step"),
    ("router.gate", INTERNAL, "router.layer"),
    ("router.scatter", INTERNAL, "router.layer"),
    ("router.gather", INTERNAL, "router.layer"),
    ("router.combine", INTERNAL, "router.layer"),
    ("router.expert", CLIENT, "router.layer"),
    ("expert.compute", SERVER, "router.expert"),
}


@asynccontextmanager
async def traced(
    olmoe: Path, **router_settings: Any
) -> AsyncIterator[tuple[Client, RecordedSpans]]:
    """A client of a cluster, and what is recorded once it serves; without a share of the time for
    layers.
    """
    settings = {"trace_layers_share": 0.0} | router_settings
    # Services hand their spans over now and then, and the last ones as they stop.
    with recorded_spans() as recorded:
        async with (
            local.cluster(olmoe, router_settings=settings) as cluster,
            open_channel(cluster.gateway) as channel,
        ):
            yield Client(channel, cluster.gateway), recorded


async def generate(client: Client, **fields: Any) -> None:
    stop = common_pb2.StopConditions(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    await client.complete("the gate", metadata=SAMPLED, **{"stop": stop, **fields})


async def test_a_trace_reaches_from_the_client_to_every_layer_and_service(olmoe: Path) -> None:
    async with traced(olmoe) as (client, recorded):
        await generate(client, trace_detail=common_pb2.TRACE_DETAIL_LAYER)
    spans = recorded.spans
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert recorded.named("gateway.generate")[0].parent_span_id.hex() == PARENT_ID
    names = {identity: span.name for identity, span in by_id.items()}
    assert {(span.name, span.kind, names.get(span.parent_span_id, "")) for span in spans} == TREE
    assert len(recorded.named("router.step")) == NEW_TOKENS  # the prefill draws the first token
    layers, calls = recorded.named("router.layer"), recorded.named("router.expert")
    for name in (
        "router.layer",
        "router.gate",
        "router.scatter",
        "router.gather",
        "router.combine",
    ):
        assert len(recorded.named(name)) == NEW_TOKENS * NUM_LAYERS
    assert sorted(span.parent_span_id for span in recorded.named("expert.compute")) == sorted(
        call.span_id for call in calls
    )
    for layer in layers:
        asked = [
            attributes_of(call)["server.address"]
            for call in calls
            if call.parent_span_id == layer.span_id
        ]
        assert attributes_of(layer)["moesaic.straggler"] in asked
    for call in calls:
        told = attributes_of(call)
        assert sum(int(told[f"moesaic.{part}_nanos"]) for part in PARTS) == (
            call.end_time_unix_nano - call.start_time_unix_nano
        )


async def test_the_request_says_how_deep_its_trace_goes(olmoe: Path) -> None:
    async with traced(olmoe) as (client, recorded):
        await generate(client, trace_detail=common_pb2.TRACE_DETAIL_REQUEST)
        assert {span.name for span in recorded.spans} >= {"gateway.generate", "router.sequence"}
        assert not recorded.named("router.step")
        await generate(client)
        assert len(recorded.named("router.step")) == NEW_TOKENS
        assert not recorded.named("router.layer")


async def test_of_requests_that_say_nothing_the_first_is_traced_to_its_layers(olmoe: Path) -> None:
    async with traced(olmoe, trace_layers_share=1e-6) as (client, recorded):
        await generate(client)
        assert len(recorded.named("router.layer")) == NEW_TOKENS * NUM_LAYERS
