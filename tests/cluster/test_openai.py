"""OpenAI's own client against a whole cluster, over HTTP."""

import asyncio
import base64
import io
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.cli.members import free_addresses
from services.runtime.channels import open_channel
from tests.cluster import local
from tests.gateway.gateway_client import Client

PROMPT = "Once upon a time, there was a little"
MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Tell me a story."}]
SAMPLED: dict[str, Any] = {"temperature": 0.8, "seed": 7, "max_tokens": 24}


@pytest.fixture
async def cluster(tessera: Path) -> AsyncIterator[tuple[openai.AsyncOpenAI, Client]]:
    """A cluster with the shipped model, by HTTP and by gRPC."""
    (address,) = free_addresses(1)
    settings = {"http_listen": address, "model_name": "tessera"}
    async with (
        local.cluster(tessera, dtype="float32", gateway_settings=settings) as running,
        open_channel(running.gateway) as channel,
        openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0) as sdk,
    ):
        yield sdk, Client(channel, running.gateway)


async def test_what_openais_client_gets_is_what_grpc_gives(
    cluster: tuple[openai.AsyncOpenAI, Client],
) -> None:
    sdk, client = cluster
    sampling = common_pb2.SamplingParameters(temperature=0.8, seed=7)
    shared: dict[str, Any] = {
        "sampling": sampling,
        "stop": common_pb2.StopConditions(max_new_tokens=24),
    }
    deltas, _ = await client.complete(PROMPT, **shared)
    text = "".join(delta.text for delta in deltas)
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="Tell me a story.")])
    deltas, completion = await client.complete(chat=chat, **shared)
    said = "".join(delta.text for delta in deltas)

    whole, stream = await asyncio.gather(
        sdk.completions.create(model="tessera", prompt=PROMPT, **SAMPLED),
        sdk.completions.create(model="tessera", prompt=PROMPT, stream=True, **SAMPLED),
    )
    assert whole.choices[0].text == text
    assert "".join([chunk.choices[0].text async for chunk in stream]) == text

    answer = await sdk.chat.completions.create(
        model="tessera", messages=MESSAGES, extra_body={"return_routed_experts": True}, **SAMPLED
    )
    assert answer.choices[0].message.content == said
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == completion.usage.prompt_tokens
    assert answer.usage.completion_tokens == completion.usage.completion_tokens
    encoded: Any = answer.choices[0].model_extra or {}
    experts = np.load(io.BytesIO(base64.b64decode(encoded["routed_experts"])))
    assert experts.shape == (completion.usage.completion_tokens, 6, 2)
    chunks = [
        chunk
        async for chunk in await sdk.chat.completions.create(
            model="tessera",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            **SAMPLED,
        )
    ]
    *parts, last = chunks
    assert "".join(part.choices[0].delta.content or "" for part in parts) == said
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    assert last.usage is not None
    assert last.usage.completion_tokens == completion.usage.completion_tokens

    await assert_choices_and_likelihoods_agree(sdk)
    (model,) = (await sdk.models.list()).data
    assert (await sdk.models.retrieve("tessera")).id == model.id == "tessera"
    for wrong in ({"model": "other"}, {"model": "tessera", "n": 0}):
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)) as refusal:
            await sdk.chat.completions.create(messages=MESSAGES, **wrong)
        assert refusal.value.param in wrong
    left = await sdk.completions.create(
        model="tessera",
        prompt=PROMPT,
        stream=True,
        max_tokens=2000,
        extra_body={"ignore_eos": True},
    )
    await anext(aiter(left))
    await left.close()
    load = await sdk.get("../load", cast_to=dict[str, int])
    while load["server_load"]:
        load = await sdk.get("../load", cast_to=dict[str, int])


async def assert_choices_and_likelihoods_agree(sdk: openai.AsyncOpenAI) -> None:
    """Of several choices of several prompts, with penalties, a stop string and an echo, a stream
    says what one answer does.
    """
    asked: dict[str, Any] = {
        "prompt": [PROMPT, "The sea"],
        "n": 2,
        "logprobs": 2,
        "echo": True,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "logit_bias": {"300": -5},
        "stop": ["."],
        "extra_body": {"repetition_penalty": 1.2, "include_stop_str_in_output": True},
    }
    whole, stream = await asyncio.gather(
        sdk.completions.create(model="tessera", **asked, **SAMPLED),
        sdk.completions.create(model="tessera", stream=True, **asked, **SAMPLED),
    )
    texts: dict[int, str] = defaultdict(str)
    tokens: dict[int, list[str]] = defaultdict(list)
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += (choice.logprobs and choice.logprobs.tokens) or []
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    for choice in whole.choices:
        assert choice.text == texts[choice.index]
        assert choice.text.startswith((PROMPT, "The sea")[choice.index // 2])
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == tokens[choice.index]
        values, offsets = choice.logprobs.token_logprobs, choice.logprobs.text_offset
        assert values is not None
        assert offsets is not None
        assert values[0] is None  # of the prompt's first token, with each choice
        assert all(value <= 0 for value in values[1:])
        assert choice.text[offsets[-1] :] == choice.logprobs.tokens[-1]
    assert whole.choices[0].text != whole.choices[1].text
