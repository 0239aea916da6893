"""Text in, text out, through all three services; what it cost; and what bad input comes to."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.runtime.channels import open_channel
from services.runtime.server import PortInUse
from tests.cluster import local
from tests.gateway.gateway_client import Client, failure_of

GREEDY = common_pb2.SamplingParameters(temperature=0.0)
PROMPT = "Once upon a time, there was a little"


def stop(**fields: Any) -> common_pb2.StopConditions:
    return common_pb2.StopConditions(**fields)


@pytest.fixture
async def client(tessera: Path) -> AsyncIterator[Client]:
    """A client of a cluster with the shipped model in float32."""
    async with (
        local.cluster(tessera, dtype="float32") as cluster,
        open_channel(cluster.gateway) as channel,
    ):
        yield Client(channel, cluster.gateway)


async def text_of(client: Client, **fields: Any) -> tuple[str, list[int], pb.Completion]:
    deltas, completion = await client.complete(PROMPT, **{"sampling": GREEDY} | fields)
    return (
        "".join(delta.text for delta in deltas),
        [t for delta in deltas for t in delta.token_ids],
        completion,
    )


async def test_the_text_is_what_transformers_generates(client: Client, tessera: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tessera)
    model: Any = AutoModelForCausalLM.from_pretrained(tessera, dtype=torch.float32)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40
    )[0]
    expected = output[ids.shape[1] :].tolist()
    text, token_ids, completion = await text_of(client, stop=stop(max_new_tokens=40))
    assert token_ids == expected
    assert text == tokenizer.decode(expected, skip_special_tokens=True)
    assert completion.usage.prompt_tokens == ids.shape[1]
    assert completion.usage.completion_tokens == len(expected)
    assert completion.usage.numerics_fingerprint


async def test_the_parts_of_the_receipt_make_up_the_time(client: Client) -> None:
    """Every part is measured on its own; together they are 95 to 100 % of the end-to-end time, but
    where a busy machine takes the processor away between two of them.
    """
    await text_of(client, stop=stop(max_new_tokens=8))
    shares = []
    calls = [text_of(client, stop=stop(max_new_tokens=24, ignore_eos=True)) for _ in range(6)]
    alone = await text_of(client, stop=stop(max_new_tokens=24, ignore_eos=True))
    for _, _, completion in [alone, *await asyncio.gather(*calls)]:
        receipt = completion.receipt
        assert receipt.prefill.steps >= 1
        assert receipt.decode.steps == 23
        assert receipt.slowest_service.startswith("127.0.0.1:")
        assert receipt.slowest_service_layers > 0
        measured = receipt.end_to_end_nanos - receipt.unaccounted_nanos
        assert measured == parts_of(receipt)
        shares.append(measured / receipt.end_to_end_nanos)
    assert all(0.75 <= share <= 1.0 for share in shares), shares
    assert max(shares) >= 0.95, shares


def parts_of(receipt: common_pb2.LatencyReceipt) -> int:
    """The sum of all measured parts."""
    own = (
        receipt.gateway_queue_nanos
        + receipt.tokenise_nanos
        + receipt.gateway_router_nanos
        + receipt.detokenise_nanos
    )
    for phase in (receipt.prefill, receipt.decode):
        own += sum(value for field, value in phase.ListFields() if field.name.endswith("_nanos"))
    return own


async def test_a_seed_gives_the_same_text_again(client: Client) -> None:
    warm = common_pb2.SamplingParameters(temperature=0.9, top_p=0.95, seed=42)
    first, again = [
        (await text_of(client, sampling=warm, stop=stop(max_new_tokens=20)))[0] for _ in range(2)
    ]
    assert first == again
    _, _, completion = await text_of(
        client, sampling=common_pb2.SamplingParameters(temperature=0.9)
    )
    assert completion.usage.seed != 0


async def test_a_stop_string_ends_the_text_before_it(client: Client) -> None:
    whole, _, _ = await text_of(client, stop=stop(max_new_tokens=40))
    word = whole.split()[4]
    text, _, completion = await text_of(client, stop=stop(max_new_tokens=40, stop_strings=[word]))
    assert text == whole[: whole.index(word)]
    assert completion.finish_reason == common_pb2.FINISH_REASON_STOP
    assert completion.stop_string == word


async def test_a_chat_is_rendered_by_the_checkpoints_template(
    client: Client, tessera: Path
) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Tell me a story about a fox."}]
    expected: Any = AutoTokenizer.from_pretrained(tessera).apply_chat_template(
        messages, add_generation_prompt=True
    )
    chat = pb.Chat(messages=[pb.ChatMessage(**message) for message in messages])
    tokens = await client.stub.Tokenize(pb.TokenizeRequest(chat=chat))
    assert list(tokens.token_ids) == list(expected["input_ids"])
    deltas, completion = await client.complete(
        chat=chat, sampling=GREEDY, stop=stop(max_new_tokens=5)
    )
    assert completion.usage.prompt_tokens == len(tokens.token_ids)
    assert sum(len(delta.token_ids) for delta in deltas) == completion.usage.completion_tokens


async def test_routed_experts_come_with_the_tokens(client: Client) -> None:
    deltas, _ = await client.complete(
        PROMPT, sampling=GREEDY, stop=stop(max_new_tokens=6), return_routed_experts=True
    )
    for delta in deltas:
        assert len(delta.routed_experts) == len(delta.token_ids)
        for routed in delta.routed_experts:
            assert [layer.layer for layer in routed.layers] == list(range(6))
            assert all(len(layer.experts) == 2 for layer in routed.layers)


async def test_bytes_that_are_no_utf8_are_refused(client: Client) -> None:
    message = b"\x0a\x02\xff\xfe"  # text = two bytes that begin no character
    call = client.channel.unary_stream("/moesaic.v1.GenerationService/Generate")(message)
    status, details = await failure_of(call)
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in details


async def test_a_prompt_longer_than_the_context_is_refused(client: Client) -> None:
    status, details = await client.refused(token_ids=pb.TokenIds(ids=[5] * 2048))
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert "2048" in details


async def test_a_message_above_the_limit_is_refused(client: Client) -> None:
    status, _ = await client.refused(token_ids=pb.TokenIds(ids=[5] * 20_000_000))
    assert status == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_client_that_leaves_frees_its_place(tessera: Path) -> None:
    limits = {"max_sequences": 1, "max_batch_tokens": 64}
    async with (
        local.cluster(tessera, router_settings=limits) as cluster,
        open_channel(cluster.gateway) as channel,
    ):
        client = Client(channel, cluster.gateway)
        for _ in range(3):
            leaving = client.generate(PROMPT, stop=stop(max_new_tokens=1500, ignore_eos=True))
            async for _ in leaving:
                break
            leaving.cancel()
        # Only one sequence fits: this one is served because the others are gone, not because they
        # ended.
        _, _, completion = await text_of(client, stop=stop(max_new_tokens=3, ignore_eos=True))
        assert completion.usage.completion_tokens == 3


async def test_a_deadline_that_passes_in_the_router_ends_the_call(client: Client) -> None:
    call = client.generate(PROMPT, timeout=0.5, stop=stop(max_new_tokens=2000, ignore_eos=True))
    status, _ = await failure_of(call)
    assert status == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_port_in_use_is_refused_by_every_service(tessera: Path) -> None:
    async with local.cluster(tessera) as cluster:
        for service in (
            local.expert(tessera, listen=cluster.experts[0]),
            local.router(tessera, cluster.experts, listen=cluster.router),
            local.gateway(tessera, [cluster.router], listen=cluster.gateway),
        ):
            with pytest.raises((PortInUse, ExceptionGroup)) as caught:
                async with service:
                    pass
            assert "the port is in use" in str(leaf_of(caught.value))


def leaf_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
