"""What the gateway measures, by name."""

import pytest

from moesaic.v1 import generation_pb2 as pb
from services.gateway.refusals import Bound
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble
from tests.recorded_metrics import RecordedMetrics, having, metrics_of_this_process


@pytest.fixture
def recorded() -> RecordedMetrics:
    """What is counted from now on."""
    recorded = metrics_of_this_process()
    recorded.read()
    return recorded


async def test_a_request_is_timed_by_the_conventional_names(recorded: RecordedMetrics) -> None:
    async with running_gateway(RouterDouble(answer=[5, 6, 7])) as client:
        await client.complete()
        await client.refused("")
    found = recorded.read()
    well, badly = map(dict, found["gen_ai.server.request.duration"])
    assert well == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": "tessera",
    }
    assert badly["error.type"] == "INVALID_ARGUMENT"
    assert len(found["gen_ai.server.time_to_first_token"]) == 1
    assert len(found["gen_ai.server.time_per_output_token"]) == 1
    assert found["moesaic.gateway.batch.requests"] == {having(): 1}


async def test_what_waits_and_what_is_refused_is_counted(recorded: RecordedMetrics) -> None:
    async with running_gateway(RouterDouble(sequences=0), max_waiting_requests=1) as client:
        waiting = client.generate(token_ids=pb.TokenIds(ids=[5] * 7))
        await client.stub.GetModel(pb.GetModelRequest())
        await client.refused()
        found = recorded.read()
        assert not waiting.done()
    assert found["moesaic.gateway.waiting.requests"] == {having(): 1}
    assert found["moesaic.gateway.waiting.tokens"] == {having(): 7}
    refusals = {having(reason=reason.value): 0 for reason in Bound}  # there before their first
    assert found["moesaic.gateway.refusals"] == refusals | {having(reason="waiting_requests"): 1}
    assert found["moesaic.gateway.resumptions"] == {having(): 0}
    assert [*found["moesaic.build_info"].values()] == [1]


async def test_routers_that_can_be_used_are_counted(recorded: RecordedMetrics) -> None:
    async with running_gateway(RouterDouble(), RouterDouble()) as client:
        await client.until_up(2)
        up = recorded.read()["moesaic.gateway.routers"]
    ended = recorded.read()["moesaic.gateway.routers"]
    assert (up, ended) == ({having(): 2}, {having(): 0})
