"""Queues are bounded: what is beyond is refused at once, and a client above its rate waits its
turn.
"""

import asyncio
from typing import Any

import grpc
import pytest

from moesaic.v1 import generation_pb2 as pb
from services.gateway.admission import Admission
from services.gateway.pacing import ClientPacing
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


async def test_a_cancelled_wait_gives_its_turn_to_the_next() -> None:
    pacing = ClientPacing(requests_per_second=0.001, max_waiting=1, max_clients=1)
    await pacing.wait("client")
    for _ in range(3):  # each would be refused if the one before it still waited
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pacing.wait("client"), timeout=0.01)


def test_what_waits_is_counted_until_it_leaves_and_again_when_it_comes_back() -> None:
    admission = Admission(max_requests=2, max_tokens=100)
    place = admission.enter()
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
    places = [admission.enter() for _ in range(3)]
    for place in places:
        place.leave()  # at 0, 2 and 4 s
    for _ in range(3):
        admission.enter()
    with pytest.raises(Overloaded) as refusal:
        admission.enter()
    assert refusal.value.retry_after_seconds == 6  # one in 2 s, three before it
