"""The batch in flight is the timer: what queues up behind it forms the next, within the router's
credit.
"""

import asyncio
from typing import Any

import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble, finished, refused, token


def prompt(num_tokens: int, max_new_tokens: int = 1) -> dict[str, Any]:
    """A prompt that can be told by its length."""
    return {
        "token_ids": pb.TokenIds(ids=[5] * num_tokens),
        "stop": common_pb2.StopConditions(max_new_tokens=max_new_tokens),
    }


async def lengths(router: RouterDouble) -> list[int]:
    return [len(sequence.prompt_token_ids) for sequence in await router.submits.get()]


class Crowd:
    """Calls that are made in order, each one waiting in the gateway before the next is made."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: list[Any] = []

    async def call(self, num_tokens: int, max_new_tokens: int = 1) -> None:
        self.calls.append(self._client.generate(**prompt(num_tokens, max_new_tokens)))
        # A second call on the same connection is answered after the gateway has begun with the
        # first.
        await self._client.stub.GetModel(pb.GetModelRequest())


async def test_what_queues_up_behind_a_batch_in_flight_forms_the_next() -> None:
    router = RouterDouble(acknowledges=False)
    async with running_gateway(router) as client:
        crowd = Crowd(client)
        for num_tokens in (1, 2, 3, 4):
            await crowd.call(num_tokens)
        assert await lengths(router) == [1]
        assert router.submits.empty()
        router.grant()
        assert await lengths(router) == [2, 3, 4]


async def test_a_batch_is_bounded_in_requests() -> None:
    router = RouterDouble(acknowledges=False)
    async with running_gateway(router, max_batch_requests=2) as client:
        crowd = Crowd(client)
        for num_tokens in (1, 2, 3, 4):
            await crowd.call(num_tokens)
        batches = [await lengths(router)]
        for _ in range(2):
            router.grant()
            batches.append(await lengths(router))
    assert batches == [[1], [2, 3], [4]]


async def test_a_batch_is_bounded_in_prompt_tokens_and_a_longer_prompt_goes_alone() -> None:
    router = RouterDouble(acknowledges=False)
    async with running_gateway(router, max_batch_tokens=10) as client:
        crowd = Crowd(client)
        for num_tokens in (1, 6, 4, 20, 2):
            await crowd.call(num_tokens)
        batches = [await lengths(router)]
        for _ in range(3):
            router.grant()
            batches.append(await lengths(router))
    assert batches == [[1], [6, 4], [20], [2]]


async def test_a_batch_stays_within_the_credit_for_sequences() -> None:
    router = RouterDouble(acknowledges=False, sequences=0)
    async with running_gateway(router) as client:
        crowd = Crowd(client)
        for num_tokens in (1, 2, 3):
            await crowd.call(num_tokens)
        router.sequences = 2
        router.grant()
        assert await lengths(router) == [1, 2]


async def test_a_request_that_does_not_fit_the_credit_is_not_overtaken() -> None:
    router = RouterDouble(acknowledges=False, sequences=0)
    async with running_gateway(router) as client:
        crowd = Crowd(client)
        for num_tokens in (1, 50, 2):
            await crowd.call(num_tokens, max_new_tokens=10)
        router.sequences, router.kv_tokens = 8, 40
        router.grant()
        assert await lengths(router) == [1]
        router.grant()
        router.kv_tokens = 100
        router.grant()
        assert await lengths(router) == [50, 2]


async def test_a_caller_that_left_the_queue_is_never_submitted() -> None:
    router = RouterDouble(acknowledges=False, sequences=0)
    async with running_gateway(router) as client:
        crowd = Crowd(client)
        for num_tokens in (1, 2, 3):
            await crowd.call(num_tokens)
        crowd.calls[1].cancel()
        await client.stub.GetModel(pb.GetModelRequest())
        router.sequences = 8
        router.grant()
        assert await lengths(router) == [1, 3]


async def test_a_sequence_that_the_router_refuses_goes_back_to_the_front() -> None:
    router = RouterDouble(acknowledges=False)
    async with running_gateway(router) as client:
        crowd = Crowd(client)
        for num_tokens in (1, 2, 3):
            await crowd.call(num_tokens)
        (first,) = await router.submits.get()
        router.say(refused(first.sequence), credit=True)
        batch = await router.submits.get()
        assert [len(sequence.prompt_token_ids) for sequence in batch] == [1, 2, 3]
        for sequence in batch:
            router.say(token(sequence.sequence, 5), finished(sequence.sequence))
        for call in crowd.calls:
            assert [event.WhichOneof("event") async for event in call] == ["delta", "completion"]


async def test_after_a_refusal_nothing_is_submitted_until_there_is_new_credit() -> None:
    router = RouterDouble(acknowledges=True)
    async with running_gateway(router) as client:
        crowd = Crowd(client)
        await crowd.call(9, max_new_tokens=9)
        other = await router.next_sequence()
        await crowd.call(1)
        router.say(refused((await router.next_sequence()).sequence), token(other.sequence, 5))
        await crowd.calls[0].read()  # the refusal is known to the gateway
        await crowd.call(2)
        assert router.submits.empty()
        router.grant()
        assert await lengths(router) == [1, 2]


@pytest.mark.parametrize("num_calls", [40])
async def test_every_call_of_a_crowd_is_answered(num_calls: int) -> None:
    router = RouterDouble(answer=[5, 6], sequences=3)
    async with running_gateway(router) as client:
        async with asyncio.TaskGroup() as calls:
            answers = [calls.create_task(client.complete(f"call {i}")) for i in range(num_calls)]
        numbers = [
            sequence.sequence
            for _ in range(router.submits.qsize())
            for sequence in await router.submits.get()
        ]
    assert all(answer.result()[1].usage.completion_tokens == 2 for answer in answers)
    assert sorted(numbers) == list(range(1, num_calls + 1))
