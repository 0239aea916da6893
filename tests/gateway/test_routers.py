"""Several routers, lost routers, and routers that are not of the gateway's checkpoint."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.app import gateway
from services.gateway.ledger import MAX_FRUITLESS
from services.gateway.receipt import GATEWAY_PARTS
from services.gateway.settings import GatewaySettings
from services.metadata.tokenizer_digest import tokenizer_digest
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.wire.errors import BadState
from tests.gateway.gateway_client import Client, connected, failure_of, running_gateway
from tests.gateway.router_double import RouterDouble, finished, serving_router, token
from tests.runtime.services import KINDS, choose

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture(autouse=True, params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the streams to the routers are made of."""
    choose(request.param, monkeypatch)


def gateway_settings(router: str) -> GatewaySettings:
    return GatewaySettings(listen="127.0.0.1:0", http_listen="", routers=[router], drain_seconds=0)


def ids(num_tokens: int) -> dict[str, Any]:
    return {"token_ids": pb.TokenIds(ids=[5] * num_tokens)}


async def test_the_router_with_most_credit_gets_the_batch() -> None:
    small, large = (
        RouterDouble(kv_tokens=100, acknowledges=False),
        RouterDouble(kv_tokens=200, acknowledges=False),
    )
    async with running_gateway(small, large) as client:
        await client.until_up(2)
        calls = [client.generate(**ids(1)) for _ in range(2)]
        # The first takes the larger router; while its batch is in flight the other one has most.
        await asyncio.gather(large.submits.get(), small.submits.get())
        assert all(not call.done() for call in calls)


async def test_a_sequence_without_a_token_moves_to_another_router_when_its_own_is_lost() -> None:
    lost, other = RouterDouble(kv_tokens=200), RouterDouble(answer=[5], kv_tokens=100)
    async with running_gateway(lost, other) as client:
        await client.until_up(2)
        call = client.generate(**ids(3))
        await lost.submits.get()
        lost.break_stream()
        assert [event.WhichOneof("event") async for event in call] == ["delta", "completion"]
        assert len((await other.next_sequence()).prompt_token_ids) == 3


@pytest.mark.parametrize("back_at", ["another router", "the same router"])
async def test_a_sequence_goes_on_after_its_last_token_when_its_router_is_lost(
    back_at: str,
) -> None:
    lost = RouterDouble(kv_tokens=200)
    routers = [lost, RouterDouble(kv_tokens=100)] if "another" in back_at else [lost]
    async with running_gateway(*routers) as client:
        await client.until_up(len(routers))
        call = aiter(client.generate(**ids(3), sampling=common_pb2.SamplingParameters(seed=7)))
        begun = await lost.next_sequence()
        lost.say(token(begun.sequence, 5), token(begun.sequence, 6))
        deltas = [await anext(call)]
        lost.break_stream()
        resumed = await routers[-1].next_sequence()
        assert [*resumed.generated_token_ids] == [5, 6]
        for field in ("prompt_token_ids", "sampling", "max_new_tokens", "stop_token_ids"):
            assert getattr(resumed, field) == getattr(begun, field)
        routers[-1].say(token(resumed.sequence, 7), finished(resumed.sequence))
        *more, last = [event async for event in call]
    assert [each for event in deltas + more for each in event.delta.token_ids] == [5, 6, 7]
    assert last.completion.usage.completion_tokens == 3
    assert last.completion.receipt.resumptions == 1
    assert last.completion.receipt.lost_router_nanos > 0


async def test_what_is_too_large_for_the_routers_that_are_left_keeps_nobody_waiting() -> None:
    large, small = RouterDouble(kv_tokens=64), RouterDouble(kv_tokens=20, answer=[5])
    small.may_begin.clear()
    async with running_gateway(large, small) as client:
        await client.until_up(1)
        call = client.generate(**ids(40))
        begun = await large.next_sequence()
        large.say(token(begun.sequence, 5))
        small.may_begin.set()
        await client.until_up(2)
        large.may_begin.clear()
        await large.described.get()
        large.break_stream()
        await large.described.get()  # the gateway has noticed, and asks again
        for _ in range(2):
            _, completion = await client.complete(**ids(3))
            assert completion.usage.completion_tokens == 1
        large.may_begin.set()
        resumed = await large.next_sequence()
        assert [*resumed.generated_token_ids] == [5]
        large.say(token(resumed.sequence, 6), finished(resumed.sequence))
        *deltas, _ = [event async for event in call]
    assert [each for event in deltas for each in event.delta.token_ids] == [5, 6]


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ([9], common_pb2.FINISH_REASON_STOP),
        ([5, 6], common_pb2.FINISH_REASON_LENGTH),
    ],
)
async def test_a_sequence_of_which_only_the_end_was_not_said_ends_without_another_router(
    tokens: list[int], reason: common_pb2.FinishReason.ValueType
) -> None:
    router = RouterDouble()
    stop = common_pb2.StopConditions(max_new_tokens=2, stop_token_ids=[9])
    async with running_gateway(router) as client:
        call = client.generate(stop=stop)
        number = (await router.next_sequence()).sequence
        router.say(*(token(number, each) for each in tokens))
        router.break_stream()
        *_, last = [event async for event in call]
        assert router.submits.empty()
    assert last.completion.finish_reason == reason
    assert last.completion.usage.completion_tokens == len(tokens)


async def test_the_receipts_of_a_router_that_stops_and_of_the_next_one_are_added() -> None:
    stopping, other = RouterDouble(kv_tokens=200), RouterDouble(kv_tokens=100)
    parts = common_pb2.LatencyReceipt(
        decode=common_pb2.PhaseReceipt(dense_nanos=300, steps=2),
        retries=1,
        hedges=2,
        slowest_service="here:1",
        slowest_service_layers=4,
    )
    async with running_gateway(stopping, other) as client:
        await client.until_up(2)
        call = client.generate(**ids(3))
        number = (await stopping.next_sequence()).sequence
        stopping.sequences = 0
        error = {"status": UNAVAILABLE, "is_stopping": True, "receipt": parts, "router_nanos": 1}
        stopping.say(token(number, 5), finished(number, common_pb2.FINISH_REASON_ERROR, **error))
        resumed = await other.next_sequence()
        assert [*resumed.generated_token_ids] == [5]
        other.say(
            token(resumed.sequence, 6),
            finished(resumed.sequence, receipt=parts, overflowed_pairs=2),
        )
        *_, last = [event async for event in call]
    receipt = last.completion.receipt
    assert (receipt.decode.dense_nanos, receipt.decode.steps, receipt.retries) == (600, 4, 2)
    assert receipt.hedges == 4
    assert (receipt.slowest_service, receipt.slowest_service_layers) == ("here:1", 4)
    assert (receipt.resumptions, receipt.lost_router_nanos) == (1, 0)
    shown = 600 + sum(getattr(receipt, part) for part in (*GATEWAY_PARTS, "unaccounted_nanos"))
    assert shown == receipt.end_to_end_nanos


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"instance": ""}, "the one that there is cannot go on with it"),
        ({"trunk_hash": b"another"}, "the one that there is has another checkpoint"),
    ],
)
async def test_a_sequence_does_not_go_on_where_its_tokens_would_be_others(
    other: dict[str, Any], message: str
) -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate()
        router.say(token((await router.next_sequence()).sequence, 5))
        await call.read()
        for field, value in other.items():
            setattr(router.description, field, value)
        router.break_stream()
        status, told = await failure_of(call)
    assert (status, message in told) == (UNAVAILABLE, True)


async def test_a_gateway_connects_again_to_a_router_whose_stream_broke() -> None:
    router = RouterDouble(answer=[5])
    async with running_gateway(router) as client:
        router.break_stream()
        await client.complete()  # within the grace it waits for the router to come back
        assert router.num_streams == 2


async def test_a_sequence_with_which_two_routers_were_lost_is_given_up() -> None:
    one, two = RouterDouble(kv_tokens=200), RouterDouble(kv_tokens=100)
    async with running_gateway(one, two) as client:
        await client.until_up(2)
        call = client.generate(**ids(3))
        begun = await one.next_sequence()
        one.say(token(begun.sequence, 5))
        one.break_stream()
        await two.next_sequence()
        two.break_stream()
        status, message = await failure_of(call)
        assert one.submits.empty()
    assert status == UNAVAILABLE
    assert message == "2 times in a row a router that computed the request was lost"


async def test_routers_that_are_lost_one_after_the_other_end_no_sequence_that_gets_on() -> None:
    router = RouterDouble()
    num_lives = MAX_FRUITLESS + 1
    async with running_gateway(router) as client:
        stop = common_pb2.StopConditions(max_new_tokens=num_lives)
        call = client.generate(stop=stop)
        for life in range(num_lives):
            sequence = await router.next_sequence()
            assert len(sequence.generated_token_ids) == life
            router.say(token(sequence.sequence, 5))
            router.description.instance = f"life {life}"
            router.break_stream()
        *_, last = [event async for event in call]
    assert last.completion.receipt.resumptions == num_lives - 1


async def test_a_router_that_says_nothing_any_more_loses_its_sequences_to_another_one() -> None:
    hanging, other = RouterDouble(kv_tokens=200), RouterDouble(kv_tokens=100)
    async with running_gateway(hanging, other) as client:
        await client.until_up(2)
        call = client.generate(**ids(3))
        begun = await hanging.next_sequence()
        hanging.answers.clear()
        hanging.say(token(begun.sequence, 5))
        resumed = await other.next_sequence()
        hanging.say(token(begun.sequence, 9), finished(begun.sequence))
        other.say(token(resumed.sequence, 6), finished(resumed.sequence))
        *deltas, last = [event async for event in call]
        hanging.answers.set()
        await client.until_up(2)
    assert [each for event in deltas for each in event.delta.token_ids] == [5, 6]
    assert last.completion.receipt.resumptions == 1


async def test_a_router_that_says_nothing_and_is_the_only_one_is_waited_for() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        await router.described.get()
        call = client.generate(**ids(3))
        number = (await router.next_sequence()).sequence
        router.answers.clear()
        router.say(token(number, 5))
        for _ in range(2):  # it is asked whether it is there, and again
            await router.described.get()
        router.say(token(number, 6), finished(number))
        *deltas, _ = [event async for event in call]
        router.answers.set()
    assert [each for event in deltas for each in event.delta.token_ids] == [5, 6]
    assert router.num_streams == 1


async def test_a_sequence_that_breaks_every_stream_to_its_router_is_given_up() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate()
        for _ in range(MAX_FRUITLESS):
            await router.submits.get()
            router.break_stream()
        status, message = await failure_of(call)
    assert (status, message.endswith("was lost")) == (UNAVAILABLE, True)


async def test_what_waits_fails_when_no_router_comes_back_in_time() -> None:
    async with AsyncExitStack() as stack:
        routers = AsyncExitStack()
        router = RouterDouble(sequences=0)
        address = await routers.enter_async_context(serving_router(router))
        client = await stack.enter_async_context(
            connected(routers=[address], router_grace_seconds=0.05)
        )
        waiting = client.generate()
        await client.stub.GetModel(pb.GetModelRequest())
        await routers.aclose()
        assert await failure_of(waiting) == (UNAVAILABLE, "no router came back within 0.05 s")
        assert await client.refused() == (UNAVAILABLE, "no router can be reached")


async def test_a_request_whose_turn_comes_after_the_routers_are_gone_is_refused() -> None:
    async with AsyncExitStack() as stack:
        routers = AsyncExitStack()
        address = await routers.enter_async_context(serving_router(RouterDouble(answer=[5])))
        limits: dict[str, Any] = {"router_grace_seconds": 0, "requests_per_second": 1}
        client = await stack.enter_async_context(connected(routers=[address], **limits))
        await client.complete()
        paced = client.generate(timeout=10)
        await client.stub.GetModel(pb.GetModelRequest())
        await routers.aclose()
        assert await failure_of(paced) == (UNAVAILABLE, "no router can be reached")


async def test_a_departed_sequence_is_not_begun_again_on_another_router() -> None:
    lost, other = RouterDouble(kv_tokens=200), RouterDouble(answer=[5], kv_tokens=100)
    async with running_gateway(lost, other) as client:
        await client.until_up(2)
        lost.answers_cancels = False
        call = client.generate(**ids(3))
        await lost.submits.get()
        call.cancel()
        await lost.cancels.get()
        lost.break_stream()
        await client.complete(**ids(4))
        remaining = [len(sequence.prompt_token_ids) for sequence in await other.submits.get()]
    assert remaining == [4]


async def test_a_gateway_refuses_to_start_with_a_router_of_another_vocabulary() -> None:
    async with serving_router(RouterDouble(vocab_size=32_000)) as address:
        settings = gateway_settings(address)
        with pytest.raises(ExceptionGroup) as failure:
            async with gateway(settings) as running:
                await running.until_ready()
    assert failure.group_contains(
        BadState, match="a vocabulary of 32000, the gateway's checkpoint one of 4096"
    )


async def test_a_gateway_refuses_to_start_with_a_router_of_another_tokenizer() -> None:
    async with serving_router(RouterDouble(tokenizer_digest="another")) as address:
        settings = gateway_settings(address)
        with pytest.raises(ExceptionGroup) as failure:
            async with gateway(settings) as running:
                await running.until_ready()
    assert failure.group_contains(BadState, match=r"'tessera' has another tokenizer\.json than the")


async def test_a_router_that_comes_back_with_another_tokenizer_is_refused_and_why_is_told() -> None:
    router = RouterDouble(answer=[5], tokenizer_digest=tokenizer_digest(EMBEDDED_MODEL))
    async with running_gateway(router, router_grace_seconds=0) as client:
        await client.complete()
        former, router.description.tokenizer_digest = router.description.tokenizer_digest, "another"
        router.break_stream()
        for _ in range(3):  # once at first, once to be refused, and once more after that
            await router.described.get()
        status, message = await client.refused()
        assert status == grpc.StatusCode.FAILED_PRECONDITION
        assert message.startswith(
            "no router can be reached: the router's model 'tessera' has another tokenizer.json"
        )
        router.description.tokenizer_digest = former
        await client.until_up(1)
        await client.complete()


@pytest.mark.parametrize("other", [{"model_digest": "another"}, {"trunk_hash": b"another"}])
async def test_of_two_routers_of_different_checkpoints_only_the_first_is_used(
    other: dict[str, Any],
) -> None:
    first, second = (
        RouterDouble(answer=[5], trunk_hash=b"one"),
        RouterDouble(answer=[5], **{"trunk_hash": b"one"} | other),
    )
    for router in (first, second):
        router.may_begin.clear()
    async with (
        serving_router(first) as one,
        serving_router(second) as two,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(begin_once_both_are_described(first, second))
        async with connected(routers=[one, two]) as client:
            await refused_one(first, second)
            for _ in range(4):
                await client.complete()
    assert sorted([first.submits.qsize(), second.submits.qsize()]) == [0, 4]


async def begin_once_both_are_described(*routers: RouterDouble) -> None:
    for router in routers:
        await router.described.get()
    for router in routers:
        router.may_begin.set()


async def refused_one(*routers: RouterDouble) -> None:
    """Return when a router was described a second time: it was not good enough the first time."""
    again = [asyncio.ensure_future(router.described.get()) for router in routers]
    await asyncio.wait(again, return_when=asyncio.FIRST_COMPLETED)
    for each in again:
        each.cancel()


async def test_a_gateway_waits_for_its_router_and_is_not_healthy_meanwhile(
    unused_tcp_port: int,
) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    settings = gateway_settings(address)
    async with gateway(settings) as running, AsyncExitStack() as stack:
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{running.port}")
        )
        client = Client(channel, "")
        assert await client.health() == "NOT_SERVING"
        assert await client.refused() == (UNAVAILABLE, "no router can be reached")


async def test_a_gateway_is_healthy_while_a_router_can_be_reached() -> None:
    async with AsyncExitStack() as stack:
        routers = AsyncExitStack()
        address = await routers.enter_async_context(serving_router(RouterDouble()))
        client = await stack.enter_async_context(
            connected(routers=[address], router_grace_seconds=0)
        )
        watch = client.watch_health()
        while await anext(watch) != "SERVING":
            pass
        await routers.aclose()
        assert await anext(watch) == "NOT_SERVING"


async def test_a_router_that_ends_a_sequence_without_a_token_for_its_own_reason_is_believed() -> (
    None
):
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate()
        number = (await router.next_sequence()).sequence
        router.say(
            finished(
                number,
                common_pb2.FINISH_REASON_ERROR,
                status=grpc.StatusCode.UNAVAILABLE,
                message="nobody hosts expert 3 of layer 1",
            )
        )
        assert await failure_of(call) == (UNAVAILABLE, "nobody hosts expert 3 of layer 1")
