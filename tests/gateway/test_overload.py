"""Queues are bounded: what is beyond is refused at once, and a client above its rate waits its
turn.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from moesaic.v1 import generation_pb2 as pb
from services.gateway.admission import Admission
from services.gateway.clients import AnyClients
from services.gateway.doorkeeper import HEALTH_CHECK, MAX_HEALTH_CHECKS, GatewayDoorkeeper
from services.gateway.methods import QUEUED, SERVICE_NAME
from services.gateway.pacing import ClientPacing
from services.gateway.quotas import SAVED_SECONDS, TokenQuotas
from services.runtime.native_server.asked import ShownCall
from services.wire.errors import Overloaded
from tests.gateway.gateway_client import failure_of, running_gateway
from tests.gateway.router_double import RouterDouble

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def ids(num_tokens: int) -> dict[str, Any]:
    return {"token_ids": pb.TokenIds(ids=[5] * num_tokens)}


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    router = RouterDouble(sequences=0)
    async with running_gateway(router, max_waiting_requests=2) as client:
        waiting = [client.generate(**ids(1)) for _ in range(2)]
        await client.stub.GetModel(pb.GetModelRequest())
        refused = client.generate(**ids(1))
        status, message = await failure_of(refused)
        trailing = dict(await refused.trailing_metadata())
        assert not any(call.done() for call in waiting)
    assert (status, message) == (EXHAUSTED, "2 requests are waiting already; the limit is 2")
    assert int(trailing["retry-after-ms"]) > 0


async def test_too_many_waiting_tokens_refuse_at_once() -> None:
    router = RouterDouble(sequences=0)
    async with running_gateway(router, max_waiting_tokens=10) as client:
        waiting = client.generate(**ids(30))  # alone it is let in, however long
        await client.stub.GetModel(pb.GetModelRequest())
        status, message = await client.refused(**ids(1))
        assert not waiting.done()
    assert status == EXHAUSTED
    assert "limit of 10" in message


async def test_a_request_that_left_makes_room_for_another() -> None:
    router = RouterDouble(answer=[5])
    async with running_gateway(router, max_waiting_requests=1) as client:
        for _ in range(3):
            await client.complete(**ids(3))


async def test_a_request_that_a_router_has_taken_does_not_wait_any_more() -> None:
    router = RouterDouble()
    async with running_gateway(router, max_waiting_requests=1, max_waiting_tokens=1) as client:
        calls = [client.generate(**ids(3))]
        await router.next_sequence()
        calls.append(client.generate(**ids(3)))
        await router.next_sequence()
        assert not any(call.done() for call in calls)


async def test_waiting_for_the_rate_counts_as_waiting() -> None:
    router = RouterDouble(answer=[5])
    async with running_gateway(router, requests_per_second=0.001, max_waiting_requests=1) as client:
        await client.complete(**ids(1))
        waiting = client.generate(**ids(1))
        await client.stub.GetModel(pb.GetModelRequest())
        status, message = await client.refused(**ids(1))
        assert not waiting.done()
    assert (status, message) == (EXHAUSTED, "1 requests are waiting already; the limit is 1")


async def test_a_client_far_above_its_rate_is_refused_at_once() -> None:
    router = RouterDouble(answer=[5])
    async with running_gateway(router, requests_per_second=0.001, max_paced_requests=1) as client:
        await client.complete(**ids(1))
        waiting = client.generate(**ids(1))
        await client.stub.GetModel(pb.GetModelRequest())
        status, message = await client.refused(**ids(1))
        assert not waiting.done()
    assert status == EXHAUSTED
    assert "rate of 0.001 requests per second; the limit is 1" in message


async def test_a_client_gets_its_requests_through_in_order() -> None:
    pacing, passed = ClientPacing(requests_per_second=200, max_waiting=500, max_clients=1), []

    async def request(number: int) -> None:
        await pacing.wait("client")
        passed.append(number)

    async with asyncio.TaskGroup() as requests:
        for number in range(300):
            requests.create_task(request(number))
    assert passed == list(range(300))


async def test_the_client_seen_longest_ago_is_forgotten_first() -> None:
    pacing = ClientPacing(requests_per_second=0.001, max_waiting=1, max_clients=2)
    for client in ("a", "b", "c"):
        await pacing.wait(client)
    await asyncio.wait_for(pacing.wait("a"), timeout=5)  # forgotten, and so new again
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pacing.wait("c"), timeout=0.05)


async def test_a_client_that_changes_between_two_rates_has_the_higher_one_at_most() -> None:
    pacing = ClientPacing(requests_per_second=0, max_waiting=1, max_clients=9)
    await pacing.wait("client", 0.001)
    for rate in (0.002, 0.001):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pacing.wait("client", rate), timeout=0.05)


async def test_a_cancelled_wait_gives_its_turn_to_the_next() -> None:
    pacing = ClientPacing(requests_per_second=0.001, max_waiting=1, max_clients=1)
    await pacing.wait("client")
    for _ in range(3):  # each would be refused if the one before it still waited
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pacing.wait("client"), timeout=0.01)


def test_what_waits_is_counted_until_it_leaves_and_again_when_it_comes_back() -> None:
    admission = Admission(max_requests=2, max_tokens=100)
    place = admission.enter("client")
    place.claim(30)
    assert (admission.num_requests, admission.num_tokens) == (1, 30)
    place.leave()
    place.leave()
    assert (admission.num_requests, admission.num_tokens) == (0, 0)
    place.resume()
    assert (admission.num_requests, admission.num_tokens) == (1, 30)


def test_the_retry_delay_follows_the_pace_of_departures() -> None:
    clock = iter([0.0, 2.0, 4.0, 6.0])
    admission = Admission(max_requests=3, max_tokens=100, clock=lambda: next(clock))
    places = [admission.enter("client") for _ in range(3)]
    for place in places:
        place.leave()  # at 0, 2 and 4 s
    for _ in range(3):
        admission.enter("client")
    with pytest.raises(Overloaded) as refusal:
        admission.enter("client")
    assert refusal.value.retry_after_seconds == 6  # one in 2 s, three before it


async def test_one_client_has_at_most_its_share_of_the_queue() -> None:
    router = RouterDouble(sequences=0)
    async with running_gateway(router, max_waiting_requests=4, max_client_share=0.5) as client:
        waiting = [client.generate(**ids(1)) for _ in range(2)]
        await client.stub.GetModel(pb.GetModelRequest())
        status, message = await client.refused(**ids(1))
        assert not any(call.done() for call in waiting)
    assert status == EXHAUSTED
    assert message == "2 requests of this client are waiting already; the limit is 2"


def test_a_clients_share_of_waiting_tokens_leaves_room_for_others() -> None:
    admission = Admission(max_requests=9, max_tokens=100, client_share=0.5)
    admission.enter("one").claim(45)
    with pytest.raises(Overloaded, match="45 prompt tokens of this client"):
        admission.enter("one").claim(10)
    admission.enter("two").claim(55)  # alone it is let in, however long


async def test_a_refused_call_is_told_so_before_its_request_is_read() -> None:
    router = RouterDouble(sequences=0)
    async with running_gateway(router, max_waiting_requests=1) as client:
        waiting = client.generate(**ids(1))
        await client.stub.GetModel(pb.GetModelRequest())
        path = f"/{SERVICE_NAME}/Generate"
        refused = client.channel.stream_stream(path)()  # it sends nothing
        status, _ = await failure_of(refused)
        trailing = dict(await refused.trailing_metadata())
        assert not waiting.done()
    assert status == EXHAUSTED
    assert int(trailing["retry-after-ms"]) > 0


async def test_calls_of_any_kind_are_bounded_but_for_health_checks() -> None:
    async with running_gateway(RouterDouble(sequences=0), max_calls=2) as client:
        watch = client.watch_health()
        assert await anext(watch) == "SERVING"
        waiting = client.generate(**ids(1))
        status, message = await client.refused(**ids(1))
        assert (status, message) == (
            EXHAUSTED,
            "2 calls are under way already; the limit is 2",
        )
        assert await client.health() == "SERVING"
        waiting.cancel()
        await watch.aclose()


def doorkeeper_of(max_calls: int) -> GatewayDoorkeeper:
    return GatewayDoorkeeper(
        AnyClients(),
        max_calls=max_calls,
        client_share=0.5,
        queued=QUEUED,
        admission=Admission(max_requests=9, max_tokens=9),
        quotas=TokenQuotas(tokens_per_second=0, max_clients=9),
    )


def test_health_checks_of_a_connection_that_are_not_asked_take_none_from_others() -> None:
    doorkeeper = doorkeeper_of(max_calls=1)
    one, two = (ShownCall((), f"ipv4:10.0.0.1:{port}", {}) for port in (1, 2))
    leaves = [doorkeeper.admit(HEALTH_CHECK, one) for _ in range(MAX_HEALTH_CHECKS)]
    with pytest.raises(Overloaded, match="16 health checks of this connection"):
        doorkeeper.admit(HEALTH_CHECK, one)
    doorkeeper.admit(HEALTH_CHECK, two)
    leaves.pop()()
    doorkeeper.admit(HEALTH_CHECK, one)


def test_a_call_that_is_over_makes_room_for_another_of_its_client() -> None:
    doorkeeper = doorkeeper_of(max_calls=4)

    def admit(peer: str, method: str = QUEUED[0]) -> Callable[[], None]:
        return doorkeeper.admit(method, ShownCall((), peer, {}))

    leave = admit("ipv4:10.0.0.1:1")
    admit("ipv4:10.0.0.1:2", "/other.Service/Method")
    with pytest.raises(Overloaded, match="2 calls of this client"):
        admit("ipv4:10.0.0.1:3")
    admit("ipv4:10.0.0.1:3", HEALTH_CHECK)
    leave()
    admit("ipv4:10.0.0.1:3")
    admit("ipv4:10.0.0.2:3")
    admit("ipv4:10.0.0.2:3")
    with pytest.raises(Overloaded, match="4 calls are under way"):
        admit("ipv4:10.0.0.3:3")


def test_who_used_more_tokens_than_its_rate_is_refused_until_that_is_paid_off() -> None:
    now = 0.0
    quotas = TokenQuotas(tokens_per_second=10, max_clients=9, clock=lambda: now)
    quotas.charge("one", round(10 * SAVED_SECONDS) + 20)
    with pytest.raises(Overloaded, match="20 tokens more than its rate of 10") as refused:
        quotas.check("one")
    assert refused.value.retry_after_seconds == 2
    quotas.check("two")
    now = 2.0
    quotas.check("one")


async def test_tokens_of_prompt_and_continuation_count_for_a_clients_rate() -> None:
    router = RouterDouble(answer=[5] * 9)
    async with running_gateway(router, tokens_per_second=0.5) as client:
        await client.complete(**ids(3))  # 12 tokens, where 5 are saved
        status, message = await client.refused(**ids(1))
    assert status == EXHAUSTED
    assert "its rate of 0.5 tokens per second" in message
