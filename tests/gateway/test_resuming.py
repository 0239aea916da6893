"""A client goes on with a request at a gateway that did not begin it."""

from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.checkpoint import read_checkpoint
from services.gateway.request_names import RequestNames
from services.gateway.requests import RequestReader
from services.runtime.embedded_model import EMBEDDED_MODEL
from tests.gateway.gateway_client import failure_of, running_gateway
from tests.gateway.router_double import RouterDouble, finished, token

WARM = common_pb2.SamplingParameters(temperature=1.0)


def resume(*token_ids: int, seed: int = 7) -> dict[str, Any]:
    return {"resume": pb.Resume(seed=seed, generated_token_ids=token_ids)}


async def test_the_first_message_of_a_stream_says_what_is_needed_to_go_on() -> None:
    async with running_gateway(RouterDouble(answer=[40, 41])) as client:
        stop = common_pb2.StopConditions(max_new_tokens=9)
        call = client.generate("hello", sampling=WARM, stop=stop, request_id="mine")
        first, *others = [event async for event in call]
        assert first.HasField("delta")
        completion = others[-1].completion
        assert first.started == pb.Started(
            request_id="mine",
            seed=completion.usage.seed,
            prompt_tokens=completion.usage.prompt_tokens,
            max_new_tokens=9,
        )
        assert not any(event.HasField("started") for event in others)
        assert len((await anext(aiter(client.generate()))).started.request_id) == 32


async def test_a_request_goes_on_after_the_tokens_that_its_client_has() -> None:
    router = RouterDouble(answer=[40, 41, 42, 43])
    async with running_gateway(router) as client:
        deltas, whole = await client.complete("hello", sampling=WARM)
        begun = await router.next_sequence()
        router.answer = [42, 43]
        seed = whole.usage.seed
        rest, completion = await client.complete(
            "hello", sampling=WARM, **resume(40, 41, seed=seed)
        )
        resumed = await router.next_sequence()
    assert [*resumed.generated_token_ids] == [40, 41]
    assert resumed.max_new_tokens == begun.max_new_tokens
    assert resumed.sampling == begun.sampling
    assert [each for delta in rest for each in delta.token_ids] == [42, 43]
    text = "".join(delta.text for delta in deltas)
    assert text.endswith("".join(delta.text for delta in rest))
    assert completion.usage == whole.usage


async def test_a_request_that_asked_for_a_seed_of_zero_goes_on_with_it() -> None:
    router = RouterDouble(answer=[42])
    async with running_gateway(router) as client:
        sampling = common_pb2.SamplingParameters(temperature=1.0, seed=0)
        await client.complete("hello", sampling=sampling, **resume(40, 41, seed=0))
        resumed = await router.next_sequence()
    assert (resumed.sampling.seed, [*resumed.generated_token_ids]) == (0, [40, 41])


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ({"max_new_tokens": 2}, common_pb2.FINISH_REASON_LENGTH),
        ({"stop_token_ids": [5]}, common_pb2.FINISH_REASON_STOP),
        ({"stop_strings": ['"']}, common_pb2.FINISH_REASON_STOP),  # which is token 5
    ],
)
async def test_a_request_whose_client_lacks_the_end_alone_gets_that(
    stop: dict[str, Any], reason: common_pb2.FinishReason.ValueType
) -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        deltas, completion = await client.complete(
            stop=common_pb2.StopConditions(**stop), **resume(40, 5)
        )
        assert router.submits.empty()
    assert [each for delta in deltas for each in delta.token_ids] == []
    assert completion.finish_reason == reason
    assert completion.usage.completion_tokens == 2


async def test_text_that_was_held_back_comes_once_with_the_last_token() -> None:
    router = RouterDouble(answer=[40, 41])
    async with running_gateway(router) as client:
        deltas, _ = await client.complete()
        text = "".join(delta.text for delta in deltas)
        stop = common_pb2.StopConditions(max_new_tokens=2, stop_strings=[text[-1] + "..."])
        await router.submits.get()
        router.answer = None
        call = client.generate(stop=stop)
        number = (await router.next_sequence()).sequence
        router.say(token(number, 40), token(number, 41))  # and not yet the end
        begun = (await anext(aiter(call))).delta
        assert begun.text == text
        rest, completion = await client.complete(stop=stop, **resume(*begun.token_ids))
    assert "".join(delta.text for delta in rest) == ""
    assert completion.finish_reason == common_pb2.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (resume(*[5] * 64), "resume.generated_token_ids has 64 elements; the context takes 64"),
        (resume(*[5] * 17), "resume.generated_token_ids has 17 elements; at most 16 are generated"),
        (resume(4096), "resume.generated_token_ids: 4096 is no token; the vocabulary has 4096"),
        (
            resume(5) | {"sampling": common_pb2.SamplingParameters(seed=8)},
            "sampling.seed is 8, and resume.seed 7: they must agree",
        ),
        (resume(5, seed=0), "resume.seed is not said; `started` has it, in the first message"),
        (
            resume(5, seed=0) | {"sampling": common_pb2.SamplingParameters(seed=8)},
            "sampling.seed is 8, and resume.seed 0: they must agree",
        ),
        ({"request_id": "a" * 65}, "request_id has 65 characters; the limit is 64"),
    ],
)
async def test_what_cannot_be_gone_on_with_is_refused(fields: dict[str, Any], message: str) -> None:
    async with running_gateway(RouterDouble()) as client:
        status, told = await client.refused(**fields)
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert told.startswith(message)


def test_the_tokens_of_a_long_continuation_are_not_too_much_beside_the_prompt() -> None:
    checkpoint = read_checkpoint(EMBEDDED_MODEL)
    reader = RequestReader(checkpoint, max_prompt_bytes=9, max_context=lambda: 1 << 17)
    request = pb.GenerateRequest(text="hello", **resume(*[100_000] * 30_000))
    assert reader.generate(request).max_new_tokens is None


async def test_a_newer_request_ends_its_clients_older_one_of_the_same_name() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        older = client.generate(request_id="mine")
        await router.submits.get()
        newer = client.generate(request_id="mine")
        number = (await router.next_sequence()).sequence
        assert await failure_of(older) == (
            grpc.StatusCode.ABORTED,
            "a newer request is called 'mine', as this one is",
        )
        router.say(token(number, 5), finished(number))
        assert [event async for event in newer][-1].HasField("completion")


def test_nobody_ends_a_strangers_request() -> None:
    names = RequestNames()
    with names.named("one", "mine") as older, names.named("another", "mine") as strangers:
        assert not older.is_replaced
        with names.named("one", "mine"):
            assert older.is_replaced
        assert not strangers.is_replaced
