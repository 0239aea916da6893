"""A router is lost while it computes requests, and another goes on: nobody sees it."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from moesaic.client import generate
from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from tests.cluster import local
from tests.cluster.everything import STOP_TOKEN, everything
from tests.cluster.router_client import connected as connected_to_router
from tests.gateway.gateway_client import Client, connected

NUMERICS = {"dtype": "float32", "batch_invariant": True}
NEW_TOKENS = 120
VOCAB = 4096
PROMPTS = ["Once upon a time", "The old house", "Numbers:"]


Answer = tuple[str, list[int], list[common_pb2.PositionLogprobs], pb.Completion]


async def answer(client: Client, prompt: str, begun: asyncio.Event | None = None) -> Answer:
    """The text, the tokens and how likely they were, of a request with everything that its draws
    can depend on.
    """
    stop = common_pb2.StopConditions(
        max_new_tokens=NEW_TOKENS, stop_token_ids=[STOP_TOKEN], min_new_tokens=NEW_TOKENS
    )
    text, token_ids, completion = "", list[int](), pb.Completion()
    logprobs: list[common_pb2.PositionLogprobs] = []
    async for event in client.generate(prompt, stop=stop, **everything(VOCAB)):
        text += event.delta.text
        token_ids += event.delta.token_ids
        logprobs += [*event.delta.prompt_logprobs, *event.delta.logprobs]
        completion = event.completion
        if begun is not None and len(token_ids) > NEW_TOKENS // 10:
            begun.set()
    return text, token_ids, logprobs, completion


async def test_another_router_goes_on_with_the_same_tokens(tessera: Path) -> None:
    async with AsyncExitStack() as stack, local.experts(tessera, 1, **NUMERICS) as experts:
        other = await stack.enter_async_context(local.router(tessera, experts, **NUMERICS))
        leaving = AsyncExitStack()
        larger = {"kv_memory": "128MiB"} | NUMERICS
        lost = await leaving.enter_async_context(local.router(tessera, experts, **larger))
        client = await stack.enter_async_context(connected(routers=[other, lost]))
        await client.until_up(2)
        whole = await asyncio.gather(*(answer(client, prompt) for prompt in PROMPTS))
        begun = [asyncio.Event() for _ in PROMPTS]
        async with asyncio.TaskGroup() as tasks:
            answers = [
                tasks.create_task(answer(client, prompt, event))
                for prompt, event in zip(PROMPTS, begun, strict=True)
            ]
            await asyncio.gather(*(event.wait() for event in begun))
            await leaving.aclose()
    receipts = []
    for (*told, completion), task in zip(whole, answers, strict=True):
        *told_again, resumed = task.result()
        assert told_again == told
        assert resumed.usage == completion.usage
        receipts.append(resumed.receipt)
    gone_on = [receipt for receipt in receipts if receipt.resumptions]
    assert gone_on
    assert all(receipt.lost_router_nanos > 0 for receipt in gone_on)


async def test_a_client_goes_on_at_another_gateway_with_the_same_text(tessera: Path) -> None:
    stop = common_pb2.StopConditions(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    request = pb.GenerateRequest(text=PROMPTS[0], stop=stop)
    request.sampling.temperature = 0.8
    async with (
        local.experts(tessera, 1, **NUMERICS) as experts,
        local.router(tessera, experts, **NUMERICS) as router,
        local.gateway(tessera, [router]) as staying,
        AsyncExitStack() as leaving,
    ):
        lost = await leaving.enter_async_context(local.gateway(tessera, [router]))
        events = []
        async for event in generate(request, [lost, staying]):
            events.append(event)
            if len(events) == NEW_TOKENS // 10:
                await leaving.aclose()
        request.sampling.seed = events[0].started.seed
        whole = [event async for event in generate(request, [staying])]
    assert sum(event.HasField("started") for event in events) == 2
    assert text_and_tokens(events) == text_and_tokens(whole)
    assert events[-1].completion.usage == whole[-1].completion.usage


def text_and_tokens(events: Sequence[pb.GenerateResponse]) -> tuple[str, list[int]]:
    text = "".join(event.delta.text for event in events)
    return text, [each for event in events for each in event.delta.token_ids]


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        ([5] * 8, "generated_token_ids has 8 tokens; max_new_tokens is 8"),
        ([320], "generated_token_ids has 320; the vocabulary ends at 319"),
    ],
)
async def test_tokens_that_nothing_can_follow_are_refused(
    olmoe: Path, generated: Sequence[int], message: str
) -> None:
    async with local.experts(olmoe, 1) as experts, local.router(olmoe, experts) as address:
        async with connected_to_router(address) as client:
            names = await client.submit([[5, 6]], generated_token_ids=generated)
            (outcome,) = await client.finished(*names)
    assert outcome.finish is not None
    assert message in outcome.finish.message
