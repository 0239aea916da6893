"""What can never be served is refused at once, with a status and a message that names field and
limit.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.requests import (
    MAX_OTHER_BYTES,
    MAX_STOP_STRING_CHARACTERS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKENS,
    SHORT_TEXT_BYTES,
)
from services.runtime.embedded_model import EMBEDDED_MODEL
from tests.gateway.gateway_client import failure_of, running_gateway
from tests.gateway.router_double import RouterDouble

INVALID = grpc.StatusCode.INVALID_ARGUMENT
VOCABULARY, CONTEXT = 4096, 64


def sampling(**values: Any) -> dict[str, Any]:
    return {"sampling": common_pb2.SamplingParameters(**values)}


def stop(**values: Any) -> dict[str, Any]:
    return {"stop": common_pb2.StopConditions(**values)}


def ids(*values: int) -> dict[str, Any]:
    return {"token_ids": pb.TokenIds(ids=values)}


def chat(*messages: tuple[str, str]) -> dict[str, Any]:
    return {
        "chat": pb.Chat(
            messages=[pb.ChatMessage(role=role, content=text) for role, text in messages]
        )
    }


def said_with(**fields: Any) -> dict[str, Any]:
    return {"chat": pb.Chat(messages=[pb.ChatMessage(role="user", content="a")], **fields)}


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "empty text": ({"text": ""}, "text must not be empty"),
    "too much text": ({"text": "é" * 60}, "text has 120 bytes; the limit is 100"),
    "an unknown priority": ({"priority": 9}, "priority: 9 is not one of its values"),
    "more token ids than the context takes": (
        ids(*[VOCABULARY] * (CONTEXT + 1)),
        f"token_ids.ids has {CONTEXT + 1} elements; the context takes {CONTEXT}",
    ),
    "more messages than the context takes": (
        chat(*[("", "")] * (CONTEXT + 1)),
        f"chat.messages has {CONTEXT + 1} elements; the context takes {CONTEXT}",
    ),
    "too much beside the prompt": (
        stop(stop_strings=["a" * 65_530]),
        "bytes beside its prompt; the limit is 65536",
    ),
    "text of too many tokens": ({"text": "1" * 80}, f"context takes {CONTEXT}"),
    "no token ids": (ids(), "token_ids.ids must not be empty"),
    "a token id out of range": (ids(1, VOCABULARY), f"token_ids.ids: {VOCABULARY} is no token"),
    "as many token ids as the context takes": (
        ids(*[1] * CONTEXT),
        f"{CONTEXT} tokens; the context takes",
    ),
    "a chat without messages": (chat(), "chat.messages must not be empty"),
    "a message without a role": (chat(("user", "a"), ("", "b")), "chat.messages[1].role"),
    "a tool that is no JSON": (said_with(tools_json=["{"]), "chat.tools_json[0] is no JSON: "),
    "going on with an answer to it": (
        said_with(continue_final_message=True, add_generation_prompt=True),
        "chat.add_generation_prompt cannot be set together",
    ),
    "an unknown template": (
        said_with(template_name="rag"),
        "'tessera' has no chat template named 'rag'; its own are 'default'",
    ),
    "a chat of too many bytes": (chat(("user", "a" * 100)), "the limit is 100"),
    "negative temperature": (sampling(temperature=-0.1), "sampling.temperature is -0.1"),
    "infinite temperature": (sampling(temperature=math.inf), "sampling.temperature is inf"),
    "temperature that is no number": (
        sampling(temperature=math.nan),
        "sampling.temperature is nan",
    ),
    "temperature above the limit": (sampling(temperature=100.5), "from 0 to 100"),
    "top_p of zero": (sampling(top_p=0), "sampling.top_p is 0"),
    "top_p above one": (sampling(top_p=1.1), "sampling.top_p is 1.1"),
    "top_p that is no number": (sampling(top_p=math.nan), "sampling.top_p is nan"),
    "negative min_p": (sampling(min_p=-1), "sampling.min_p is -1"),
    "min_p above one": (sampling(min_p=2), "sampling.min_p is 2"),
    "min_p that is no number": (sampling(min_p=math.nan), "sampling.min_p is nan"),
    "no repetition penalty": (
        sampling(repetition_penalty=0),
        "sampling.repetition_penalty is 0; it must be above 0",
    ),
    "repetition penalty that is no number": (
        sampling(repetition_penalty=math.nan),
        "repetition_penalty is nan",
    ),
    "no new tokens": (stop(max_new_tokens=0), "stop.max_new_tokens must be at least 1"),
    "more new tokens than the context leaves": (
        ids(1, 2) | stop(max_new_tokens=CONTEXT - 1),
        f"stop.max_new_tokens is {CONTEXT - 1}; with a prompt of 2 tokens the context of "
        f"{CONTEXT} leaves 62",
    ),
    "too many stop strings": (stop(stop_strings=["a"] * (MAX_STOP_STRINGS + 1)), "the limit is 16"),
    "an empty stop string": (stop(stop_strings=["a", ""]), "stop.stop_strings[1] has 0 characters"),
    "a stop string that is too long": (
        stop(stop_strings=["a" * (MAX_STOP_STRING_CHARACTERS + 1)]),
        f"from 1 to {MAX_STOP_STRING_CHARACTERS}",
    ),
    "too many stop tokens": (stop(stop_token_ids=[1] * (MAX_STOP_TOKENS + 1)), "the limit is 64"),
    "a stop token out of range": (stop(stop_token_ids=[VOCABULARY]), "stop.stop_token_ids: 4096"),
    "an unknown trace detail": ({"trace_detail": 9}, "trace_detail: 9"),
}


@pytest.mark.parametrize(("fields", "message"), CASES.values(), ids=CASES.keys())
async def test_a_bad_request_is_refused_by_field_and_limit(
    fields: dict[str, Any], message: str
) -> None:
    router = RouterDouble(max_context=CONTEXT)
    async with running_gateway(router, max_prompt_bytes=100) as client:
        status, said = await client.refused(**fields)
    assert status == INVALID
    assert message in said
    assert router.submits.empty()


async def test_text_that_no_context_takes_is_refused_before_it_is_tokenised() -> None:
    text = "1" * (SHORT_TEXT_BYTES + 1)
    async with running_gateway(RouterDouble(max_context=CONTEXT)) as client:
        status, message = await client.refused(text)
        tokenising = await unary_failure(client.stub.Tokenize(pb.TokenizeRequest(text=text)))
    assert tokenising == (status, message)
    assert status == INVALID
    assert f"the context of {CONTEXT} tokens takes at most {SHORT_TEXT_BYTES}" in message


async def test_a_request_larger_than_any_that_is_served_is_refused_unread() -> None:
    async with running_gateway(RouterDouble(), max_prompt_bytes=100) as client:
        status, _ = await client.refused("1" * (100 + MAX_OTHER_BYTES))
    assert status == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_request_without_a_prompt_is_refused() -> None:
    async with running_gateway(RouterDouble()) as client:
        status, message = await failure_of(client.stub.Generate(pb.GenerateRequest()))
        with pytest.raises(grpc.aio.AioRpcError) as tokenising:
            await client.stub.Tokenize(pb.TokenizeRequest())
    assert (status, tokenising.value.code()) == (INVALID, INVALID)
    assert "prompt is not set" in message


async def test_an_unknown_model_is_not_found_and_the_served_one_is_named() -> None:
    async with running_gateway(RouterDouble()) as client:
        failures = [
            await client.refused(model="gpt"),
            await unary_failure(client.stub.GetModel(pb.GetModelRequest(model="gpt"))),
            await unary_failure(client.stub.Tokenize(pb.TokenizeRequest(text="a", model="gpt"))),
        ]
    assert (
        failures
        == [(grpc.StatusCode.NOT_FOUND, "model: 'gpt' is not served here; 'tessera' is")] * 3
    )


@pytest.mark.parametrize(
    "name", ["x" * 20_000, "é" * 4_000, "\n\x1b[2J" * 4_000], ids=["long", "two bytes", "control"]
)
async def test_an_unknown_model_is_not_found_however_long_its_name(name: str) -> None:
    async with running_gateway(RouterDouble()) as client:
        failures = [
            await client.refused(model=name),
            await unary_failure(client.stub.GetModel(pb.GetModelRequest(model=name))),
        ]
    for status, message in failures:
        assert status == grpc.StatusCode.NOT_FOUND
        assert message.endswith("…' is not served here; 'tessera' is")
        assert message.isprintable()


async def test_text_that_is_no_utf8_is_refused() -> None:
    wire = pb.GenerateRequest(text="a~").SerializeToString().replace(b"~", b"\xff")
    async with running_gateway(RouterDouble()) as client:
        call = client.channel.unary_stream("/moesaic.v1.GenerationService/Generate")
        status, message = await failure_of(call(wire))
    assert status == INVALID
    assert "UTF-8" in message


async def test_a_prompt_that_the_kv_cache_can_never_hold_is_refused() -> None:
    async with running_gateway(RouterDouble(max_context=64, kv_tokens=32)) as client:
        status, message = await client.refused(**ids(1), **stop(max_new_tokens=32))
    assert status == INVALID
    assert "context of 32 leaves 31" in message


async def test_a_chat_with_a_model_that_has_no_template_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED_MODEL / name, tmp_path)
    async with running_gateway(RouterDouble(), model=tmp_path, model_name="plain") as client:
        status, message = await client.refused(**chat(("user", "hello")))
    assert (status, message) == (INVALID, "chat: model 'plain' has no chat template; send text")


async def unary_failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details()
