"""A request's way through the gateway: what the router is asked for, and what the client gets."""

import json
import shutil
from pathlib import Path

import grpc
import pytest

from moesaic.v1 import common_pb2, generation_pb2
from services.gateway.checkpoint import read_checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL
from tests.gateway.gateway_client import failure_of, running_gateway
from tests.gateway.router_double import RouterDouble, finished, token

TOKENIZER = read_checkpoint(EMBEDDED_MODEL).tokenizer
STOP, LENGTH = common_pb2.FINISH_REASON_STOP, common_pb2.FINISH_REASON_LENGTH
EOS = 0


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text).ids


def text_of(deltas: list[generation_pb2.Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_text_goes_in_and_text_comes_out() -> None:
    answer = ids(" über 😀 all")
    router = RouterDouble(answer=answer)
    async with running_gateway(router) as client:
        deltas, completion = await client.complete("a ship")
        asked = await router.next_sequence()
    assert asked.prompt_token_ids == ids("a ship")
    assert text_of(deltas) == " über 😀 all"
    assert [token_id for delta in deltas for token_id in delta.token_ids] == answer
    assert completion.finish_reason == LENGTH
    assert not completion.HasField("stop_string")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (
        len(ids("a ship")),
        len(answer),
    )
    assert completion.usage.numerics_fingerprint == "cpu/test"


async def test_text_streams_as_the_router_sends_it() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate()
        number = (await router.next_sequence()).sequence
        for word in (" one", " two"):
            router.say(*(token(number, token_id) for token_id in ids(word)))
            assert (await call.read()).delta.text == word
        router.say(finished(number))
        assert (await call.read()).HasField("completion")


async def test_what_a_request_leaves_open_is_what_the_checkpoint_recommends() -> None:
    router = RouterDouble(answer=ids(" x"))
    async with running_gateway(router) as client:
        _, completion = await client.complete()
        asked = await router.next_sequence()
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (
        0.7,
        0,
        0.9,
        0,
    )
    assert sampling.HasField("seed")
    assert completion.usage.seed == sampling.seed
    assert asked.max_new_tokens == 16
    assert asked.stop_token_ids == [EOS]
    assert 0 < asked.remaining_nanos < 60e9


async def test_what_the_checkpoint_recommends_fills_in_what_a_request_leaves_open(
    tmp_path: Path,
) -> None:
    for file in EMBEDDED_MODEL.glob("*.js*"):
        shutil.copy(file, tmp_path)
    recommended = {
        "do_sample": False,
        "top_k": -1,
        "min_p": 0.25,
        "repetition_penalty": 1.5,
        "stop_strings": "b",
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(recommended))
    router = RouterDouble(answer=ids(" a"))
    async with running_gateway(router, model=tmp_path) as client:
        await client.complete()
        asked = (await router.next_sequence()).sampling
        assert (asked.temperature, asked.top_k, asked.min_p, asked.repetition_penalty) == (
            0,
            0,
            0.25,
            1.5,
        )
        await client.complete(
            sampling=common_pb2.SamplingParameters(temperature=0.5, min_p=0, repetition_penalty=1)
        )
        asked = (await router.next_sequence()).sampling
        assert (asked.temperature, asked.min_p) == (0.5, 0)
        assert not asked.HasField("repetition_penalty"), "it does nothing"
    router = RouterDouble(answer=ids(" ab"))
    async with running_gateway(router, model=tmp_path) as client:
        deltas, completion = await client.complete()
        assert (completion.stop_string, text_of(deltas)) == ("b", " a")


async def test_set_parameters_reach_the_router_as_they_are() -> None:
    router = RouterDouble(answer=ids(" x"))
    sampling = common_pb2.SamplingParameters(
        temperature=0, top_k=5, top_p=0.5, min_p=0.1, seed=2**64 - 1, repetition_penalty=1.5
    )
    stop = common_pb2.StopConditions(max_new_tokens=3, stop_token_ids=[7], ignore_eos=True)
    async with running_gateway(router) as client:
        _, completion = await client.complete(
            sampling=sampling, stop=stop, trace_detail=common_pb2.TRACE_DETAIL_LAYER
        )
        asked = await router.next_sequence()
    assert asked.sampling == sampling
    assert (asked.max_new_tokens, list(asked.stop_token_ids)) == (3, [7])
    assert asked.trace_detail == common_pb2.TRACE_DETAIL_LAYER
    assert completion.usage.seed == 2**64 - 1


async def test_the_default_length_is_cut_to_what_the_context_leaves() -> None:
    router = RouterDouble(answer=ids(" x"))
    async with running_gateway(router) as client:
        await client.complete(token_ids=generation_pb2.TokenIds(ids=[5] * 60))
        assert (await router.next_sequence()).max_new_tokens == 4


async def test_a_character_that_the_prompt_begins_comes_out_whole() -> None:
    *prompt, last = ids("a ship 😀")
    async with running_gateway(RouterDouble(answer=[last, *ids("é")])) as client:
        deltas, _ = await client.complete(token_ids=generation_pb2.TokenIds(ids=prompt))
    assert text_of(deltas) == "😀é"


async def test_a_chat_is_rendered_with_the_checkpoints_template() -> None:
    router = RouterDouble(answer=ids(" hi"))
    chat = generation_pb2.Chat(messages=[generation_pb2.ChatMessage(role="user", content="hello")])
    async with running_gateway(router) as client:
        await client.complete(chat=chat)
        tokenised = await client.stub.Tokenize(generation_pb2.TokenizeRequest(chat=chat))
        asked = await router.next_sequence()
    assert asked.prompt_token_ids == ids("<|user|>hello<|assistant|>")
    assert tokenised.token_ids == asked.prompt_token_ids


async def test_a_stop_string_ends_the_request_at_the_router_too() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate(stop=common_pb2.StopConditions(stop_strings=["two", "never"]))
        number = (await router.next_sequence()).sequence
        tokens = ids(" one two")
        router.say(*(token(number, token_id) for token_id in tokens))
        assert (await call.read()).delta.text == " one "
        completion = (await call.read()).completion
        assert await router.cancels.get() == number
    assert (completion.finish_reason, completion.stop_string) == (STOP, "two")
    assert completion.usage.completion_tokens == len(tokens)


async def test_what_could_begin_a_stop_string_is_shown_when_it_does_not() -> None:
    router = RouterDouble(answer=ids(" one tw"))
    async with running_gateway(router) as client:
        deltas, completion = await client.complete(
            stop=common_pb2.StopConditions(stop_strings=["two"])
        )
    assert text_of(deltas) == " one tw"
    assert completion.finish_reason == LENGTH


async def test_the_text_of_a_stop_token_is_not_returned_but_counted() -> None:
    router = RouterDouble()
    (stopper,) = ids(".")
    async with running_gateway(router) as client:
        call = client.generate(stop=common_pb2.StopConditions(stop_token_ids=[stopper]))
        number = (await router.next_sequence()).sequence
        router.say(token(number, ids(" end")[0]), token(number, stopper), finished(number, STOP))
        delta, completion = [event async for event in call]
    assert delta.delta.text == " end"
    assert delta.delta.token_ids == [ids(" end")[0], stopper]
    assert completion.completion.usage.completion_tokens == 2


async def test_routed_experts_come_with_their_tokens() -> None:
    routed = common_pb2.RoutedExperts(layers=[common_pb2.RoutedLayer(layer=3, experts=[1, 9])])
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate(return_routed_experts=True)
        asked = await router.next_sequence()
        router.say(token(asked.sequence, 5, routed), finished(asked.sequence))
        delta = (await call.read()).delta
    assert asked.return_routed_experts
    assert list(delta.routed_experts) == [routed]


async def test_a_client_that_leaves_cancels_its_sequence_at_the_router() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate()
        number = (await router.next_sequence()).sequence
        router.say(token(number, 5))
        await call.read()
        call.cancel()
        assert await router.cancels.get() == number


async def test_a_client_that_stops_reading_and_leaves_cancels_too() -> None:
    router = RouterDouble(max_context=1_000, kv_tokens=1_000)
    bulky = common_pb2.RoutedExperts(layers=[common_pb2.RoutedLayer(experts=range(20_000))])
    async with running_gateway(router) as client:
        call = client.generate(stop=common_pb2.StopConditions(max_new_tokens=900))
        number = (await router.next_sequence()).sequence
        for _ in range(
            200
        ):  # far above the client's window, so that the gateway stands still in a write
            router.say(token(number, 5, bulky))
        await call.read()
        await router.all_said()
        call.cancel()
        assert await router.cancels.get() == number


@pytest.mark.parametrize(
    ("reason", "router_status", "status"),
    [
        (common_pb2.FINISH_REASON_DEADLINE, None, grpc.StatusCode.DEADLINE_EXCEEDED),
        (common_pb2.FINISH_REASON_CANCELLED, None, grpc.StatusCode.UNAVAILABLE),
        (common_pb2.FINISH_REASON_ERROR, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
        (common_pb2.FINISH_REASON_ERROR, grpc.StatusCode.INTERNAL, grpc.StatusCode.INTERNAL),
    ],
)
async def test_the_routers_failure_reaches_the_client_as_a_status(
    reason: common_pb2.FinishReason.ValueType,
    router_status: grpc.StatusCode | None,
    status: grpc.StatusCode,
) -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate()
        number = (await router.next_sequence()).sequence
        router.say(
            token(number, 5), finished(number, reason, status=router_status, message="expert 3/7")
        )
        code, message = await failure_of(call)
    assert code == status
    assert router_status is None or message == "expert 3/7"


async def test_a_router_that_sends_too_many_tokens_is_at_fault() -> None:
    router = RouterDouble(answer=[5] * 3)
    async with running_gateway(router) as client:
        code, message = await client.refused(stop=common_pb2.StopConditions(max_new_tokens=2))
    assert code == grpc.StatusCode.INTERNAL
    assert "more tokens" in message


async def test_the_model_is_described_with_its_limits() -> None:
    async with running_gateway(RouterDouble(), model_name="mine") as client:
        model = await client.stub.GetModel(generation_pb2.GetModelRequest(model="mine"))
    assert (model.model, model.vocab_size, model.max_context) == ("mine", 4096, 64)
    assert (model.eos_token_ids, model.has_chat_template, model.num_experts) == ([EOS], True, 16)


async def test_tokenise_says_what_generate_would_see() -> None:
    async with running_gateway(RouterDouble()) as client:
        answer = await client.stub.Tokenize(generation_pb2.TokenizeRequest(text="a ship"))
    assert answer.token_ids == ids("a ship")
