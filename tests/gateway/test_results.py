"""What a request wants besides one text: likelihoods, several continuations, other text."""

from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.admission import Admission
from services.gateway.checkpoint import read_checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.wire.errors import Overloaded
from tests.gateway.gateway_client import failure_of, running_gateway
from tests.gateway.router_double import RouterDouble, finished, token

TOKENIZER = read_checkpoint(EMBEDDED_MODEL).tokenizer
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EOS = 0


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text).ids


def scored(number: int, token_id: int, *prompt: int) -> Any:
    """A token with how likely it was, and the prompt's."""
    event = token(number, token_id)
    event.token.logprobs.token.token_id = token_id
    event.token.logprobs.token.logprob = -0.5
    event.token.logprobs.top.add(token_id=7, logprob=-0.25)
    for each in prompt:
        event.token.prompt_logprobs.add().token.token_id = each
    return event


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_choices": 129}, "num_choices is 129; the limit is 128"),
        (
            {"num_choices": 2, "resume": pb.Resume(seed=1)},
            "num_choices is 2; with resume, one continuation goes on at a time",
        ),
        ({"top_logprobs": 21}, "top_logprobs is 21; it must be from 0 to 20"),
        ({"prompt_logprobs": True}, "prompt_logprobs is set, and top_logprobs is not"),
        (
            {"stop": common_pb2.StopConditions(min_new_tokens=17)},
            "stop.min_new_tokens is 17; at most 16 are generated",
        ),
        (
            {
                "stop": common_pb2.StopConditions(min_new_tokens=1),
                "sampling": common_pb2.SamplingParameters(allowed_token_ids=[EOS]),
            },
            "stop.min_new_tokens: every token that may be drawn ends the continuation",
        ),
        (
            {"sampling": common_pb2.SamplingParameters(logit_bias={4096: 1.0})},
            "sampling.logit_bias: 4096 is no token; the vocabulary has 4096 ids from 0",
        ),
        (
            {"sampling": common_pb2.SamplingParameters(logit_bias={1: -101})},
            "sampling.logit_bias[1] is -101; it must be from -100 to 100",
        ),
        (
            {"sampling": common_pb2.SamplingParameters(allowed_token_ids=[5000])},
            "sampling.allowed_token_ids: 5000 is no token; the vocabulary has 4096 ids from 0",
        ),
    ],
)
async def test_what_is_out_of_bounds_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    async with running_gateway(RouterDouble()) as client:
        assert await client.refused(**fields) == (INVALID, words)


async def test_the_router_is_asked_for_what_the_client_asks_for() -> None:
    sampling = common_pb2.SamplingParameters(
        presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={3: 2}, allowed_token_ids=[3, 9]
    )
    router = RouterDouble(answer=ids(" x"))
    async with running_gateway(router) as client:
        await client.complete(
            sampling=sampling, stop=common_pb2.StopConditions(min_new_tokens=2, max_new_tokens=9)
        )
        asked = await router.next_sequence()
    assert asked.min_new_tokens == 2
    assert (asked.sampling.presence_penalty, asked.sampling.frequency_penalty) == (0.5, -0.5)
    assert dict(asked.sampling.logit_bias) == {3: 2}
    assert asked.sampling.allowed_token_ids == [3, 9]
    assert not asked.HasField("top_logprobs")


async def test_likelihoods_go_with_their_tokens_and_the_prompts_with_the_first() -> None:
    router, answer = RouterDouble(), ids(" one two")
    async with running_gateway(router) as client:
        call = client.generate("a ship", top_logprobs=1, prompt_logprobs=True)
        asked = await router.next_sequence()
        assert (asked.top_logprobs, asked.prompt_logprobs) == (1, True)
        prompt = asked.prompt_token_ids[1:]
        router.say(scored(asked.sequence, answer[0], *prompt))
        first = (await call.read()).delta
        router.say(*(scored(asked.sequence, each) for each in answer[1:]))
        second = (await call.read()).delta
        router.say(finished(asked.sequence))
        assert (await call.read()).HasField("completion")
    assert [each.token.token_id for each in first.prompt_logprobs] == list(prompt)
    assert not second.prompt_logprobs
    for delta in (first, second):
        assert [each.token.token_id for each in delta.logprobs] == list(delta.token_ids)
        assert all(each.top[0].token_id == 7 for each in delta.logprobs)


async def test_another_router_is_not_asked_again_for_what_came_of_the_prompt() -> None:
    lost, other = RouterDouble(), RouterDouble(sequences=0)
    async with running_gateway(lost, other) as client:
        call = client.generate("a ship", top_logprobs=0, prompt_logprobs=True)
        asked = await lost.next_sequence()
        lost.say(scored(asked.sequence, 5, *asked.prompt_token_ids[1:]))
        assert (await call.read()).delta.prompt_logprobs
        other.sequences = 8
        other.grant()
        lost.break_stream()
        again = await other.next_sequence()
    assert (list(again.generated_token_ids), again.top_logprobs) == ([5], 0)
    assert not again.prompt_logprobs


async def test_a_router_that_cannot_say_how_likely_tokens_are_ends_the_request() -> None:
    router = RouterDouble(answer=ids(" x"))
    async with running_gateway(router) as client:
        status, words = await client.refused(top_logprobs=0)
    assert (status, words) == (
        grpc.StatusCode.INTERNAL,
        "the router does not say how likely tokens are",
    )


async def test_choices_are_sequences_of_one_prompt_with_seeds_in_a_row() -> None:
    router = RouterDouble()
    sampling = common_pb2.SamplingParameters(seed=2**64 - 2)
    async with running_gateway(router) as client:
        call = client.generate(
            num_choices=3, sampling=sampling, top_logprobs=0, prompt_logprobs=True
        )
        asked = await router.next_sequences(3)
        assert [each.sampling.seed for each in asked] == [2**64 - 2, 2**64 - 1, 0]
        assert all(each.prompt_logprobs for each in asked)
        assert len({tuple(each.prompt_token_ids) for each in asked}) == 1
        texts, ends, started = ["", "", ""], [], 0
        for choice in (1, 0, 2, 0):
            router.say(*(scored(asked[choice].sequence, each) for each in ids(f" {choice}")))
            response = await call.read()
            assert response.choice == choice
            started += response.HasField("started")
            texts[choice] += response.delta.text
        for choice in (2, 0, 1):
            router.say(finished(asked[choice].sequence))
            response = await call.read()
            ends.append(response.choice)
            usage = response.completion.usage
            assert usage.seed == asked[choice].sampling.seed
            assert usage.completion_tokens == len(ids(" 0")) * (2 if choice == 0 else 1)
        assert await call.read() is grpc.aio.EOF
    assert texts == [" 0 0", " 1", " 2"]
    assert (ends, started) == ([2, 0, 1], 1)


async def test_a_choice_that_fails_ends_the_call_and_gives_the_others_up() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate(num_choices=3)
        asked = await router.next_sequences(3)
        error = common_pb2.FINISH_REASON_ERROR
        router.say(
            finished(
                *(asked[1].sequence, error), status=grpc.StatusCode.UNAVAILABLE, message="lost"
            )
        )
        assert await failure_of(call) == (grpc.StatusCode.UNAVAILABLE, "lost")
        given_up = {await router.cancels.get() for _ in range(2)}
        assert given_up == {asked[0].sequence, asked[2].sequence}
        # Nothing of it waits any more, and others are served.
        router.answer = ids(" x")
        await client.complete()


async def test_a_client_that_leaves_gives_all_choices_up() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate(num_choices=2)
        asked = await router.next_sequences(2)
        call.cancel()
        given_up = {await router.cancels.get() for _ in range(2)}
        assert given_up == {each.sequence for each in asked}


def test_choices_count_as_so_many_requests_where_others_wait() -> None:
    admission = Admission(max_requests=4, max_tokens=100)
    places = [admission.enter("one"), *admission.enter_more("one", 9)]  # alone, any number may
    first, *others = places
    first.claim(50, *others)
    assert (admission.num_requests, admission.num_tokens) == (10, 500)
    for place in places:
        place.leave()
    assert (admission.num_requests, admission.num_tokens) == (0, 0)
    admission.enter("one").claim(40)
    place = admission.enter("two")
    with pytest.raises(Overloaded, match="1 requests are waiting already; the limit is 4"):
        admission.enter_more("two", 3)
    others = admission.enter_more("two", 2)
    with pytest.raises(Overloaded, match="63 more would pass"):
        place.claim(21, *others)
    place.claim(20, *others)
    assert (admission.num_requests, admission.num_tokens) == (4, 100)


async def test_special_tokens_are_left_out_or_kept() -> None:
    router = RouterDouble(answer=[*ids(" x"), EOS, *ids(" y")])
    shown = TOKENIZER.decode([EOS], skip_special_tokens=False)
    stop = common_pb2.StopConditions(ignore_eos=True)
    async with running_gateway(router) as client:
        for keeps, text in ((False, " x y"), (True, f" x{shown} y")):
            deltas, _ = await client.complete(stop=stop, keep_special_tokens=keeps)
            assert "".join(delta.text for delta in deltas) == text


async def test_a_stop_string_is_shown_where_that_is_asked_for() -> None:
    router = RouterDouble(answer=ids(" one two three"))
    async with running_gateway(router) as client:
        for shows, text in ((False, " one "), (True, " one two")):
            stop = common_pb2.StopConditions(stop_strings=["two"], include_stop_string=shows)
            deltas, completion = await client.complete(stop=stop)
            assert "".join(delta.text for delta in deltas) == text
            assert completion.stop_string == "two"
