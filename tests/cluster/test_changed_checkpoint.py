"""A checkpoint that is changed while a cluster serves it is never mixed into what is computed."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from moesaic.v1 import generation_pb2, router_pb2
from moesaic.v1.generation_pb2_grpc import GenerationServiceStub
from services.runtime.channels import open_channel
from services.wire.errors import BadState
from tests.checkpoints import VOCAB_SIZE, save_tiny, save_unsampled
from tests.cluster import local
from tests.cluster.oracle import prompts_of
from tests.cluster.router_client import Outcome, RouterClient, connected
from tests.damage import altered

WEIGHTS = "model.safetensors"
TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SECONDS = 20.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny("olmoe", tmp_path / "served", seed=1)


@pytest.fixture
def retrained(tmp_path: Path) -> bytes:
    return (save_tiny("olmoe", tmp_path / "retrained", seed=2) / WEIGHTS).read_bytes()


async def answered(client: RouterClient) -> Outcome:
    async with asyncio.timeout(SECONDS):
        (outcome,) = await client.finished(*await client.submit(prompts_of([9], VOCAB_SIZE)))
    return outcome


def overwritten(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


async def test_a_service_started_again_on_other_weights_is_refused_until_they_are_put_back(
    model: Path, retrained: bytes
) -> None:
    """What is asked for meanwhile is refused at once, and not after a wait."""
    former = (model / WEIGHTS).read_bytes()
    async with AsyncExitStack() as stack:
        first = AsyncExitStack()
        address = await first.enter_async_context(local.expert(model))
        router = await stack.enter_async_context(
            local.router(model, [address], unserved_seconds=SECONDS * 10)
        )
        client = await stack.enter_async_context(connected(router))
        before = await answered(client)
        overwritten(model / WEIGHTS, retrained)
        await first.aclose()
        await stack.enter_async_context(local.expert(model, listen=address))
        between = await answered(client)
        assert between.tokens == []
        assert between.finish is not None
        assert between.finish.status_code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert (
            f"expert service {address} cannot be used: its checkpoint is not the router's"
            in between.finish.message
        )
        overwritten(model / WEIGHTS, former)
        async with asyncio.timeout(SECONDS):
            while not (after := await answered(client)).tokens:
                pass
        assert after.tokens == before.tokens


async def test_a_router_started_later_on_other_weights_is_refused(
    model: Path, retrained: bytes
) -> None:
    async with local.experts(model, 1) as addresses, local.router(model, addresses):
        overwritten(model / WEIGHTS, retrained)
        with pytest.raises(ExceptionGroup) as caught:
            async with local.router(model, addresses, experts_wait_seconds=0.5):
                pass
        assert caught.group_contains(BadState, match="its checkpoint is not the router's")


@pytest.mark.parametrize("coverage", [1, 2])
async def test_a_service_with_another_checkpoint_of_the_same_shapes_joins_and_no_request_fails(
    tmp_path: Path, coverage: int
) -> None:
    """Its digest is the same, and it brings every expert."""
    model = save_unsampled(tmp_path / "served")
    changed = Path(shutil.copytree(model, tmp_path / "changed"))
    altered(".experts.")(changed)
    router_settings = {"coverage": coverage, "require_coverage": True}
    async with (
        local.experts(model, coverage) as addresses,
        local.router(model, addresses, **router_settings) as router,
        connected(router) as client,
        local.expert(changed, preload="all") as other,
    ):
        before = await answered(client)
        targets = router_pb2.AddExpertServicesRequest(addresses=[other])
        await client.placement.AddExpertServices(targets)
        async with asyncio.timeout(SECONDS):
            refusal = ""
            while not refusal:
                assert (await answered(client)).tokens == before.tokens
                request = router_pb2.GetPlacementRequest()
                shown = await client.placement.GetPlacement(request)
                (refusal, *_) = [one.refusal for one in shown.services if one.address == other]
        assert other in refusal
        assert shown.min_live_replicas == coverage
        assert (await answered(client)).tokens == before.tokens


@asynccontextmanager
async def generating(gateway: str) -> AsyncIterator[GenerationServiceStub]:
    async with open_channel(gateway) as channel:
        yield GenerationServiceStub(channel)


async def test_a_gateway_needs_no_more_than_the_text_files(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for name in TEXT_FILES:
        shutil.copy(model / name, text)
    config = json.loads((text / "config.json").read_text())
    (text / "config.json").write_text(json.dumps(config))  # the same, laid out otherwise
    (text / "chat_template.jinja").write_text(
        "{{ messages[0]['content'] }}"
    )  # the operator's own business
    async with (
        local.cluster(model, num_experts=1) as cluster,
        local.gateway(text, [cluster.router]) as gateway,
    ):
        async with generating(gateway) as stub:
            request = generation_pb2.GenerateRequest(text="hello")
            request.stop.max_new_tokens = 2
            assert [event async for event in stub.Generate(request, timeout=SECONDS)]


async def test_a_gateway_started_later_on_another_tokenizer_is_refused(model: Path) -> None:
    async with local.cluster(model, num_experts=1) as cluster:
        tokenizer = json.loads((model / "tokenizer.json").read_text())
        tokenizer["model"]["merges"].pop()
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(ExceptionGroup) as caught:
            async with local.gateway(model, [cluster.router]):
                pass
        assert caught.group_contains(BadState, match=r"another tokenizer\.json")
