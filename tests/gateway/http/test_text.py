"""/v1/completions: the same text as over gRPC, in one piece and in a stream."""

import asyncio
import base64
import io
import json
from typing import Any

import aiohttp
import numpy as np
import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.checkpoint import read_checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL
from tests.gateway.http.http_client import CHAT, MESSAGES, Answer, http_gateway
from tests.gateway.router_double import RouterDouble, finished, token

TOKENIZER = read_checkpoint(EMBEDDED_MODEL).tokenizer
TEXT = " über 😀 all"


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text).ids


def streamed_text(answer: Answer, index: int = 0) -> str:
    choices = [one for event in answer.events for one in event["choices"] if one["index"] == index]
    return "".join(
        one["text"] if "text" in one else one["delta"].get("content", "") for one in choices
    )


def text_of(choice: Any) -> str:
    return choice["text"] if "text" in choice else choice["message"]["content"]


@pytest.mark.parametrize("is_chat", [False, True])
async def test_text_is_the_same_whole_streamed_and_over_grpc(is_chat: bool) -> None:
    async with http_gateway(RouterDouble(answer=ids(TEXT))) as client:
        ask = client.chat if is_chat else client.text
        whole, stream = await ask(), await ask(stream=True)
        chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="hello")])
        asked: dict[str, Any] = {"chat": chat} if is_chat else {"text": "a ship"}
        deltas, completion = await client.grpc.complete(**asked)
    expected = "".join(delta.text for delta in deltas)
    (choice,) = whole.document["choices"]
    assert text_of(choice) == streamed_text(stream) == expected == TEXT
    *_, last = stream.events
    assert choice["finish_reason"] == last["choices"][0]["finish_reason"] == "length"
    usage = whole.document["usage"]
    assert usage["prompt_tokens"] == completion.usage.prompt_tokens
    assert usage["completion_tokens"] == completion.usage.completion_tokens == len(ids(TEXT))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_stream_has_a_chunk_for_each_token_even_without_text() -> None:
    router, smile = RouterDouble(), ids("😀")
    assert len(smile) > 1
    async with http_gateway(router) as client:
        posting = asyncio.create_task(
            client.session.post(CHAT, json={"messages": MESSAGES, "stream": True})
        )
        number = (await router.next_sequence()).sequence
        router.say(token(number, smile[0]))
        async with await posting as response:
            role = await next_choice(response)
            assert role["delta"] == {"role": "assistant", "content": ""}
            said = [(await next_choice(response))["delta"]]
            for token_id in smile[1:]:
                router.say(token(number, token_id))
                said.append((await next_choice(response))["delta"])
            router.say(finished(number))
            await response.read()
    assert [delta.keys() for delta in said] == [{"content"}] * len(smile)
    assert said[0]["content"] == ""
    assert "".join(delta["content"] for delta in said) == "😀"


@pytest.mark.parametrize("asked", [b"close", b"keep-alive"])
async def test_to_a_client_of_http_1_0_a_stream_goes_until_it_closes(asked: bytes) -> None:
    body = json.dumps({"messages": MESSAGES, "stream": True}).encode()
    head = b"POST %b HTTP/1.0\r\nConnection: %b\r\nContent-Length: %d\r\n\r\n"
    async with http_gateway(RouterDouble(answer=[5])) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.grpc.http_port)
        writer.write(head % (CHAT.encode(), asked, len(body)) + body)
        async with asyncio.timeout(20):
            status, said = (await reader.read()).split(b"\r\n", 1)
        writer.close()
    assert status == b"HTTP/1.0 200 OK"
    assert b"Transfer-Encoding" not in said
    assert said.endswith(b"data: [DONE]\n\n")


async def test_the_end_of_a_stream_leaves_in_one_chunk_and_is_no_clients_leaving() -> None:
    fields = {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(fields).encode()
    head = (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    async with http_gateway(RouterDouble(answer=[5])) as client:
        left_before = (await client.get("/metrics")).body.count(b'error_type="CANCELLED"')
        reader, writer = await asyncio.open_connection("127.0.0.1", client.grpc.http_port)
        writer.write(head % (b"/v1/completions", len(body)) + body)
        async with asyncio.timeout(20):
            _, said = (await reader.read()).split(b"\r\n\r\n", 1)
        writer.close()
        left = (await client.get("/metrics")).body.count(b'error_type="CANCELLED"')
    *_, last, nothing = chunks_of(said)
    assert [line[:7] for line in last.split(b"\n\n")] == [b"data: {", b"data: {", b"data: [", b""]
    assert b'"finish_reason": "length"' in last
    assert b'"completion_tokens": 1' in last
    assert nothing == b""
    assert left == left_before


def chunks_of(said: bytes) -> list[bytes]:
    """Of a body that travels in chunks."""
    chunks = []
    while said:
        size, said = said.split(b"\r\n", 1)
        chunk, said = said[: int(size, 16)], said[int(size, 16) :]
        assert said.startswith(b"\r\n")
        chunks.append(chunk)
        said = said[2:]
    return chunks


async def next_choice(response: aiohttp.ClientResponse) -> Any:
    event = await response.content.readuntil(b"\n\n")
    (choice,) = json.loads(event.removeprefix(b"data: "))["choices"]
    return choice


@pytest.mark.parametrize("continuous", [False, True])
async def test_usage_comes_at_the_end_of_a_stream_or_with_every_chunk(continuous: bool) -> None:
    options = {"include_usage": True, "continuous_usage_stats": continuous}
    async with http_gateway(RouterDouble(answer=ids(TEXT))) as client:
        answer = await client.text(stream=True, stream_options=options)
        plain = await client.text(stream=True)
    *chunks, last = answer.events
    num_prompt, num_tokens = len(ids("a ship")), len(ids(TEXT))
    expected = {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt + num_tokens,
    }
    assert (last["choices"], last["usage"]) == ([], expected)
    assert all(
        (chunk["usage"] == expected) if continuous else chunk["usage"] is None for chunk in chunks
    )
    assert last["metrics"].keys() == {
        "time_to_first_token_ms",
        "generation_time_ms",
        "queue_time_ms",
        "mean_itl_ms",
        "tokens_per_second",
    }
    assert all("usage" not in chunk for chunk in plain.events)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_ids", [False, True])
async def test_the_prompts_of_a_batch_are_continued_at_once_and_told_in_order(
    stream: bool, as_ids: bool
) -> None:
    texts = ["a ship", "b", "a"]
    router = RouterDouble()
    async with http_gateway(router) as client:
        prompts = [ids(text) for text in texts] if as_ids else texts
        posted = client.text(prompt=prompts, stream=stream, echo=True)
        answer, numbers = await asyncio.gather(posted, answered_backwards(router, len(texts)))
    assert sorted(numbers) == [0, 1, 2]
    if stream:
        assert [streamed_text(answer, index) for index in range(3)] == [
            f"{text} x" for text in texts
        ]
    else:
        choices = answer.document["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2]
        assert [choice["text"] for choice in choices] == [f"{text} x" for text in texts]
        assert answer.document["usage"]["prompt_tokens"] == sum(len(ids(one)) for one in texts)


async def answered_backwards(router: RouterDouble, count: int) -> list[int]:
    """Wait for so many sequences, and answer the last one first."""
    sequences = await router.next_sequences(count)
    for one in reversed(sequences):
        router.say(token(one.sequence, ids(" x")[0]), finished(one.sequence))
    return [*range(len(sequences))]


async def test_one_prompt_of_a_batch_that_fails_fails_the_batch() -> None:
    router = RouterDouble()
    async with http_gateway(router) as client:
        answer = await client.text(prompt=["a", "b" * 3000], max_tokens=2)
        load = await client.get("/load")
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert load.document == {"server_load": 0}


async def test_a_stop_string_is_told_and_left_out() -> None:
    async with http_gateway(RouterDouble(answer=ids(" one two three"))) as client:
        answer = await client.text(stop="two")
        stream = await client.text(stop=["two"], stream=True)
    (choice,) = answer.document["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (
        " one ",
        "stop",
        "two",
    )
    assert streamed_text(stream) == " one "
    assert stream.events[-1]["choices"][0]["stop_reason"] == "two"


async def test_nothing_is_generated_after_an_echo_of_no_tokens() -> None:
    async with http_gateway(RouterDouble(answer=ids(" x"))) as client:
        answer = await client.text(echo=True, max_tokens=0)
        stream = await client.text(echo=True, max_tokens=0, stream=True)
        refused = await client.text(max_tokens=0)
    (choice,) = answer.document["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a ship", "length")
    assert answer.document["usage"]["completion_tokens"] == 0
    assert streamed_text(stream) == "a ship"
    assert (refused.status, refused.error["param"]) == (400, "max_tokens")


@pytest.mark.parametrize("stream", [False, True])
async def test_token_ids_are_told_where_they_are_asked_for(stream: bool) -> None:
    async with http_gateway(RouterDouble(answer=ids(" x"))) as client:
        text = await client.text(return_token_ids=True, stream=stream)
        chat = await client.chat(return_token_ids=True, stream=stream)
    chat_ids = ids("<|user|>hello<|assistant|>")
    if stream:
        told = [event["choices"][0] for event in text.events]
        assert told[0]["prompt_token_ids"] == ids("a ship")
        assert told[1]["token_ids"] == ids(" x")
        assert chat.events[0]["prompt_token_ids"] == chat_ids
    else:
        (choice,) = text.document["choices"]
        assert (choice["prompt_token_ids"], choice["token_ids"]) == (ids("a ship"), ids(" x"))
        assert chat.document["prompt_token_ids"] == chat_ids
        assert chat.document["choices"][0]["token_ids"] == ids(" x")


async def test_routed_experts_are_numpys_file_in_base64() -> None:
    router = RouterDouble()
    async with http_gateway(router) as client:

        async def answer() -> None:
            asked = await router.next_sequence()
            assert asked.return_routed_experts
            for base in (0, 100):
                layers = [
                    common_pb2.RoutedLayer(layer=layer, experts=[base + layer, base + 7])
                    for layer in range(3)
                ]
                experts = common_pb2.RoutedExperts(layers=layers)
                router.say(token(asked.sequence, 5, experts))
            router.say(finished(asked.sequence))

        told, _ = await asyncio.gather(client.text(return_routed_experts=True), answer())
    encoded = told.document["choices"][0]["routed_experts"]
    experts = np.load(io.BytesIO(base64.b64decode(encoded)))
    assert experts.dtype == np.int16
    assert experts.tolist() == [
        [[base + layer, base + 7] for layer in range(3)] for base in (0, 100)
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_each_choice_tells_of_the_prompt_that_it_echoes(stream: bool) -> None:
    router, prompt = RouterDouble(), ids("a ship")
    async with http_gateway(router) as client:
        posted = asyncio.create_task(client.text(n=2, echo=True, logprobs=0, stream=stream))
        for one in await router.next_sequences(2):
            event = token(one.sequence, 5)
            event.token.logprobs.token.token_id = 5
            for each in prompt[1:] if one.prompt_logprobs else ():
                event.token.prompt_logprobs.add().token.token_id = each
            router.say(event, finished(one.sequence))
        answer = await posted
    documents = answer.events if stream else [answer.document]
    told: dict[int, list[str]] = {0: [], 1: []}
    for choice in (one for document in documents for one in document["choices"]):
        if choice["logprobs"] is not None:
            told[choice["index"]] += choice["logprobs"]["tokens"]
    names = [TOKENIZER.decode([each]) for each in (*prompt, 5)]
    assert told == {0: names, 1: names}
