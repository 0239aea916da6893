"""A request's spans lie in its client's trace, and the router goes on in it."""

import re

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from services.runtime.tracing import Recorder, recording_with
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble
from tests.recorded_spans import (
    PARENT_ID,
    TRACE_ID,
    TRACEPARENT,
    RecordedSpans,
    attributes_of,
    recorded_spans,
)

METADATA = [("traceparent", TRACEPARENT), ("tracestate", "vendor=1")]


async def test_the_stages_are_children_of_the_request_in_the_clients_trace() -> None:
    router = RouterDouble(answer=[5, 6])
    with recorded_spans() as recorded:
        async with running_gateway(router) as client:
            await client.complete(metadata=METADATA)
            asked = await router.next_sequence()
    found = {span.name: span for span in recorded.spans}
    request = found.pop("gateway.generate")
    assert found.keys() == {"gateway.tokenise", "gateway.admit", "gateway.queue", "gateway.relay"}
    assert (request.kind, request.parent_span_id.hex()) == (Span.SPAN_KIND_SERVER, PARENT_ID)
    assert {span.parent_span_id for span in found.values()} == {request.span_id}
    assert {span.trace_id.hex() for span in recorded.spans} == {TRACE_ID}
    assert attributes_of(request)["gen_ai.usage.output_tokens"] == 2
    relay = found["gateway.relay"]
    assert relay.kind == Span.SPAN_KIND_CLIENT
    assert asked.trace.traceparent == f"00-{TRACE_ID}-{relay.span_id.hex()}-01"
    assert asked.trace.tracestate == "vendor=1"


async def test_a_failed_request_says_so_in_its_span() -> None:
    with recorded_spans() as recorded:
        async with running_gateway(RouterDouble()) as client:
            await client.refused("")
    (request,) = recorded.spans
    assert request.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(request)["error.type"] == "INVALID_ARGUMENT"


async def test_a_response_says_which_trace_it_is_in_and_a_refused_request_s_too() -> None:
    with recorded_spans():
        async with running_gateway(RouterDouble(answer=[5])) as client:
            call = client.generate(metadata=METADATA)
            first, *others = [event async for event in call]
            assert first.started.trace_id == TRACE_ID
            assert not any(event.HasField("started") for event in others)
            assert TRACE_ID in dict(await call.trailing_metadata())["traceresponse"]
            refused = client.generate("")
            with pytest.raises(grpc.aio.AioRpcError):
                await refused.read()
            told = dict(await refused.trailing_metadata())["traceresponse"]
            assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", told)
    async with running_gateway(RouterDouble(answer=[5])) as client:
        call = client.generate()
        (first, *_) = [event async for event in call]
        assert first.started.trace_id == ""
        assert "traceresponse" not in dict(await call.trailing_metadata() or ())


async def test_a_sampler_that_samples_nothing_tells_the_router_so() -> None:
    router, recorded = RouterDouble(answer=[5]), RecordedSpans()
    with recording_with(Recorder(recorded.encoded.extend, ALWAYS_OFF)):
        async with running_gateway(router) as client:
            await client.complete(metadata=METADATA)
            await client.complete()
            first, second = await router.next_sequence(), await router.next_sequence()
    assert recorded.spans == []
    assert first.trace.traceparent == METADATA[0][1].removesuffix("01") + "00"
    assert second.trace.traceparent.endswith("-00")


async def test_without_tracing_the_clients_context_is_passed_on_unchanged() -> None:
    router = RouterDouble(answer=[5])
    async with running_gateway(router) as client:
        await client.complete(metadata=METADATA)
        await client.complete(metadata=[("traceparent", "nonsense")])
        first, second = await router.next_sequence(), await router.next_sequence()
    assert first.trace.traceparent == METADATA[0][1]
    assert second.trace.traceparent == ""
