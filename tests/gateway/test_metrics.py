"""What the gateway measures, by name."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from moesaic.v1 import generation_pb2 as pb
from services.gateway import admission, micro_batcher, refusals, request_metrics, routers
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble

INSTRUMENTS = {
    (request_metrics, "_request_duration"): ("histogram", request_metrics.REQUEST_DURATION),
    (request_metrics, "_time_to_first_token"): ("histogram", request_metrics.TIME_TO_FIRST_TOKEN),
    (request_metrics, "_time_per_output_token"): (
        "histogram",
        request_metrics.TIME_PER_OUTPUT_TOKEN,
    ),
    (micro_batcher, "_batch_requests"): ("histogram", micro_batcher.BATCH_REQUESTS),
    (micro_batcher, "_batch_tokens"): ("histogram", micro_batcher.BATCH_TOKENS),
    (routers, "_routers"): ("up_down_counter", routers.ROUTERS),
    (refusals, "_refusals"): ("counter", refusals.REFUSALS),
    (admission, "_waiting_requests"): ("up_down_counter", admission.WAITING_REQUESTS),
    (admission, "_waiting_tokens"): ("up_down_counter", admission.WAITING_TOKENS),
}


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """Every instrument recorded into memory: the process's own provider can be set only once."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("test")
    for (module, attribute), (kind, name) in INSTRUMENTS.items():
        monkeypatch.setattr(module, attribute, getattr(meter, f"create_{kind}")(name))
    yield reader
    provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    return {metric.name: list(metric.data.data_points) for metric in metrics}


async def test_a_request_is_timed_by_the_conventional_names(reader: InMemoryMetricReader) -> None:
    async with running_gateway(RouterDouble(answer=[5, 6, 7])) as client:
        await client.complete()
        await client.refused("")
    found = points(reader)
    well, badly = found["gen_ai.server.request.duration"]
    assert well.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": "tessera",
    }
    assert badly.attributes["error.type"] == "INVALID_ARGUMENT"
    assert found["gen_ai.server.time_to_first_token"][0].count == 1
    assert found["gen_ai.server.time_per_output_token"][0].count == 1
    assert found["moesaic.gateway.batch.requests"][0].sum == 1


async def test_what_waits_and_what_is_refused_is_counted(reader: InMemoryMetricReader) -> None:
    async with running_gateway(RouterDouble(sequences=0), max_waiting_requests=1) as client:
        waiting = client.generate(token_ids=pb.TokenIds(ids=[5] * 7))
        await client.stub.GetModel(pb.GetModelRequest())
        await client.refused()
        found = points(reader)
        assert not waiting.done()
    assert found["moesaic.gateway.waiting.requests"][0].value == 1
    assert found["moesaic.gateway.waiting.tokens"][0].value == 7
    (refused,) = found["moesaic.gateway.refusals"]
    assert (refused.value, refused.attributes) == (1, {"reason": "waiting_requests"})


async def test_routers_that_can_be_used_are_counted(reader: InMemoryMetricReader) -> None:
    async with running_gateway(RouterDouble(), RouterDouble()) as client:
        await client.until_up(2)
        (up,) = points(reader)["moesaic.gateway.routers"]
    (ended,) = points(reader)["moesaic.gateway.routers"]
    assert (up.value, ended.value) == (2, 0)
