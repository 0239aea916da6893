"""A router over real expert services: limits, refusals, ends, and what it reports."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from transformers import AutoModelForCausalLM

from moesaic.v1 import common_pb2, router_pb2, router_pb2_grpc
from services.cli.members import free_addresses
from services.router import app as router_app
from services.router.settings import RouterSettings
from services.router.start_phase import NOT_READY, StartPhase
from services.runtime.channels import open_channel
from services.wire.errors import BadState, Overloaded
from tests.checkpoints import VOCAB_SIZE, save_tiny, save_unsampled
from tests.cluster import local
from tests.cluster.oracle import prompts_of
from tests.cluster.router_client import GREEDY, connected
from tests.damage import altered

INVALID_ARGUMENT, UNAVAILABLE = 3, 14


def sampling(**changed: float) -> common_pb2.SamplingParameters:
    parameters = common_pb2.SamplingParameters()
    parameters.CopyFrom(GREEDY)
    for field, value in changed.items():
        setattr(parameters, field, value)
    return parameters


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 10_000}, "exceed the context of"),
        ({"sampling": sampling(temperature=-1.0)}, "sampling.temperature is -1;"),
        ({"sampling": sampling(temperature=float("nan"))}, "sampling.temperature is nan"),
        ({"sampling": sampling(top_p=0.0)}, "sampling.top_p is 0;"),
        ({"sampling": sampling(min_p=1.5)}, "sampling.min_p is 1.5"),
        ({"sampling": sampling(repetition_penalty=0.0)}, "sampling.repetition_penalty is 0;"),
        ({"sampling": common_pb2.SamplingParameters(temperature=0.0)}, "sampling.top_k is not set"),
    ],
)
async def test_a_bad_order_ends_with_the_field_and_the_limit(
    olmoe: Path, fields: dict[str, Any], message: str
) -> None:
    async with local.experts(olmoe, 1) as addresses, local.router(olmoe, addresses) as address:
        async with connected(address) as client:
            (outcome,) = await client.finished(*await client.submit([[5, 6]], **fields))
            assert outcome.finish is not None
            assert outcome.finish.status_code == INVALID_ARGUMENT
            assert message in outcome.finish.message
            await client.generate([[5, 6]])  # the stream goes on


@pytest.mark.parametrize(
    ("prompt", "message"), [([], "is empty"), ([VOCAB_SIZE], "the vocabulary ends at 319")]
)
async def test_a_bad_prompt_ends_with_the_limit(
    olmoe: Path, prompt: list[int], message: str
) -> None:
    async with local.experts(olmoe, 1) as addresses, local.router(olmoe, addresses) as address:
        async with connected(address) as client:
            (outcome,) = await client.finished(*await client.submit([prompt]))
            assert outcome.finish is not None
            assert message in outcome.finish.message


async def test_a_repetition_penalty_gives_the_tokens_of_transformers(olmoe: Path) -> None:
    prompts = prompts_of([3, 9, 20], VOCAB_SIZE)
    whole: Any = AutoModelForCausalLM.from_pretrained(olmoe, dtype=torch.float32)
    whole.generation_config.eos_token_id = None  # the router ends at what it is told to
    asked: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.3, "max_new_tokens": 24}
    expected = [
        whole.generate(torch.tensor([prompt]), **asked)[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    async with (
        local.experts(olmoe, 1) as addresses,
        local.router(olmoe, addresses, dtype="float32") as address,
    ):
        async with connected(address) as client:
            penalised = sampling(repetition_penalty=1.3)
            outcomes = await client.generate(
                [list(p) for p in prompts], max_new_tokens=24, sampling=penalised
            )
            assert [outcome.tokens for outcome in outcomes] == expected
            (plain,) = await client.generate([list(prompts[0])], max_new_tokens=24)
            assert plain.tokens != expected[0]


async def test_stop_tokens_limits_and_seeds_are_heeded(olmoe: Path) -> None:
    async with local.experts(olmoe, 2) as addresses, local.router(olmoe, addresses) as address:
        async with connected(address) as client:
            prompt = [7, 8, 9]
            (free,) = await client.generate([prompt], max_new_tokens=12)
            assert free.finish and free.finish.reason == common_pb2.FINISH_REASON_LENGTH
            assert len(free.tokens) == 12
            stop = free.tokens[4]
            (stopped,) = await client.generate([prompt], max_new_tokens=12, stop_token_ids=[stop])
            assert stopped.finish and stopped.finish.reason == common_pb2.FINISH_REASON_STOP
            assert stopped.tokens == free.tokens[: free.tokens.index(stop) + 1]
            warm = sampling(temperature=1.5, seed=11)
            drawn = [(await client.generate([prompt], sampling=warm))[0].tokens for _ in range(2)]
            other = (await client.generate([prompt], sampling=sampling(temperature=1.5, seed=12)))[
                0
            ].tokens
            assert drawn[0] == drawn[1]
            assert drawn[0] != other


async def test_routed_experts_come_with_each_token_where_asked_for(olmoe: Path) -> None:
    async with local.experts(olmoe, 2) as addresses, local.router(olmoe, addresses) as address:
        async with connected(address) as client:
            asked, silent = (
                await client.generate(prompts_of([5], VOCAB_SIZE) * 2, return_routed_experts=True),
                None,
            )
            (silent,) = await client.generate(prompts_of([5], VOCAB_SIZE))
    for routed in asked[0].routed:
        assert [layer.layer for layer in routed.layers] == [0, 1, 2]
        assert all(
            len(set(layer.experts)) == 2 and max(layer.experts) < 8 for layer in routed.layers
        )
    assert all(not routed.layers for routed in silent.routed)


async def test_the_credit_falls_with_submissions_and_comes_back(olmoe: Path) -> None:
    async with local.experts(olmoe, 1) as addresses:
        async with (
            local.router(olmoe, addresses, max_sequences=4) as address,
            connected(address) as client,
        ):
            await client.read()
            whole = client.credit
            assert whole.sequences == 4
            names = await client.submit(prompts_of([20, 20], VOCAB_SIZE), max_new_tokens=50)
            while client.credit.acknowledged_submits == 0:
                await client.read()
            assert client.credit.sequences == 2
            assert client.credit.kv_tokens <= whole.kv_tokens - 2 * 70
            await client.finished(*names)
            while client.credit.kv_tokens != whole.kv_tokens:
                await client.read()
            assert client.credit.sequences == 4


async def test_a_sequence_beyond_the_limit_is_refused_and_the_others_go_on(olmoe: Path) -> None:
    async with local.experts(olmoe, 1) as addresses:
        async with (
            local.router(olmoe, addresses, max_sequences=2) as address,
            connected(address) as client,
        ):
            names = await client.submit(prompts_of([4, 4, 4], VOCAB_SIZE))
            *served, refused = await client.finished(*names)
            assert all(outcome.finish and outcome.finish.status_code == 0 for outcome in served)
            assert refused.finish and refused.finish.status_code == 8
            assert "2 sequences are in flight" in refused.finish.message


async def test_a_deadline_ends_a_sequence(olmoe: Path) -> None:
    async with local.experts(olmoe, 1) as addresses, local.router(olmoe, addresses) as address:
        async with connected(address) as client:
            names = await client.submit(
                prompts_of([4], VOCAB_SIZE), max_new_tokens=200, remaining_nanos=1
            )
            (outcome,) = await client.finished(*names)
            assert outcome.finish and outcome.finish.reason == common_pb2.FINISH_REASON_DEADLINE
            assert outcome.finish.status_code == 0, "a status is for errors"


async def test_a_router_that_is_told_to_stop_ends_what_it_cannot_finish(olmoe: Path) -> None:
    async with local.experts(olmoe, 1) as addresses:
        async with (
            local.router(olmoe, addresses, drain_seconds=0) as address,
            connected(address) as client,
        ):
            names = await client.submit(prompts_of([8, 8], VOCAB_SIZE), max_new_tokens=200)
            while not all(client.outcomes[name].tokens for name in names):
                await client.read()
            signal.raise_signal(signal.SIGTERM)
            for outcome in await client.finished(*names):
                assert outcome.finish and outcome.finish.status_code == UNAVAILABLE
                assert "the router stopped before the sequence was done" in outcome.finish.message
                assert outcome.finish.is_stopping


async def test_the_capacity_guard_counts_what_it_drops(olmoe: Path) -> None:
    prompts = prompts_of([40, 40], VOCAB_SIZE)
    async with local.experts(olmoe, 2) as addresses:
        async with (
            local.router(olmoe, addresses, capacity_factor=1.0) as address,
            connected(address) as client,
        ):
            dropped = [
                outcome.finish.overflowed_pairs
                for outcome in await client.generate(prompts)
                if outcome.finish
            ]
        async with (
            local.router(olmoe, addresses, capacity_factor=8.0) as address,
            connected(address) as client,
        ):
            none = [
                outcome.finish.overflowed_pairs
                for outcome in await client.generate(prompts)
                if outcome.finish
            ]
    assert sum(dropped) > 0
    assert none == [0, 0]


async def test_a_lost_service_ends_only_its_requests_and_its_experts_move_to_the_others(
    olmoe: Path,
) -> None:
    async with local.expert(olmoe) as staying:
        async with (
            local.expert(olmoe) as leaving,
            local.router(olmoe, [staying, leaving]) as address,
        ):
            async with connected(address) as client:
                await client.generate([[5, 6, 7]])
                before = await client.placement.GetPlacement(router_pb2.GetPlacementRequest())
                assert [service.is_live for service in before.services] == [True, True]
                assert before.min_live_replicas == 1
        # The block above ends the router first: start over with the service gone for good.
        async with local.router(olmoe, [staying]) as address, connected(address) as client:
            (outcome,) = await client.generate([[5, 6, 7]])
            assert len(outcome.tokens) == 8


async def test_experts_are_homed_again_when_their_service_is_lost(olmoe: Path) -> None:
    async with local.expert(olmoe) as staying, local.expert(olmoe) as other:
        leaving = local.expert(olmoe)
        address_of_leaving = await leaving.__aenter__()
        async with (
            local.router(olmoe, [staying, other, address_of_leaving]) as address,
            connected(address) as client,
        ):
            (before,) = await client.generate([[5, 6, 7]])
            await leaving.__aexit__(None, None, None)
            async with asyncio.timeout(30):
                while True:
                    (outcome,) = await client.finished(*await client.submit([[5, 6, 7]]))
                    assert outcome.finish is not None
                    if outcome.finish.status_code == 0:
                        break
                    assert outcome.finish.status_code == UNAVAILABLE, outcome.finish.message
                    assert "of layer" in outcome.finish.message
            assert outcome.tokens == before.tokens


async def test_an_expert_service_that_comes_later_is_waited_for(olmoe: Path) -> None:
    async with local.expert(olmoe) as taken:
        port = taken.rpartition(":")[2]
    late = local.expert(olmoe, listen=f"127.0.0.1:{port}")
    starting = local.router(olmoe, [taken])
    entering = asyncio.ensure_future(starting.__aenter__())
    await asyncio.sleep(0)
    await late.__aenter__()
    async with connected(await entering) as client:
        await client.generate([[1, 2]])
    await starting.__aexit__(None, None, None)
    await late.__aexit__(None, None, None)


async def start_failure(*arguments: object, **settings: object) -> str:
    with pytest.raises((BadState, Overloaded, ExceptionGroup)) as caught:
        async with local.router(*arguments, **settings):  # type: ignore[arg-type]
            pass
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, BadState | Overloaded)
    return str(error)


async def test_too_little_expert_memory_in_the_cluster_is_refused_with_the_figures(
    olmoe: Path,
) -> None:
    async with local.experts(olmoe, 2, expert_memory="64KiB") as addresses:
        assert "too little expert memory in the cluster" in await start_failure(olmoe, addresses)


async def test_no_expert_service_at_all_is_refused_in_time(olmoe: Path) -> None:
    message = await start_failure(olmoe, ["127.0.0.1:1"], experts_wait_seconds=0.5)
    assert "none of 127.0.0.1:1 answered within 0.5 s" in message


async def test_services_of_another_checkpoint_are_refused(olmoe: Path, tmp_path: Path) -> None:
    other = save_tiny("olmoe", tmp_path / "other", num_hidden_layers=2)
    async with local.experts(other, 1) as addresses:
        message = await start_failure(olmoe, addresses, experts_wait_seconds=2.0)
    assert "its checkpoint is not the router's, their digests are" in message


async def test_services_of_retrained_weights_are_refused(olmoe: Path, tmp_path: Path) -> None:
    other = save_tiny("olmoe", tmp_path / "other", seed=2)  # the same configuration and shapes
    async with local.experts(other, 1) as addresses:
        message = await start_failure(olmoe, addresses, experts_wait_seconds=0.5)
    assert "its checkpoint is not the router's, their digests are" in message


async def test_two_services_claiming_different_weights_are_refused_where_nobody_knows_better(
    tmp_path: Path,
) -> None:
    olmoe, other = (save_unsampled(tmp_path / name) for name in ("olmoe", "other"))
    altered(".experts.")(other)
    async with local.expert(olmoe, preload="all") as one, local.expert(other, preload="all") as two:
        message = await start_failure(olmoe, [one, two], check_experts=False)
        assert "claim different weights for expert" in message


async def test_another_dtype_is_refused(olmoe: Path) -> None:
    async with local.experts(olmoe, 1, dtype="bfloat16") as addresses:
        assert "its dtype is" in await start_failure(
            olmoe, addresses, dtype="float32", experts_wait_seconds=2.0
        )


async def test_kv_memory_below_the_context_is_refused(olmoe: Path) -> None:
    async with local.experts(olmoe, 1) as addresses:
        message = await start_failure(olmoe, addresses, kv_memory="10KiB", max_context=200)
    assert "raise kv_memory or lower max_context" in message


async def test_longrope_beyond_its_original_length_is_refused(tmp_path: Path) -> None:
    model = save_tiny("phimoe_longrope", tmp_path / "phimoe_longrope", torch.float32)
    async with local.experts(model, 1) as addresses:
        async with local.router(model, addresses) as address, connected(address) as client:
            (outcome,) = await client.finished(*await client.submit([[5] * 60], max_new_tokens=10))
            assert outcome.finish and "exceed the context of 64" in outcome.finish.message
        assert "the model's limit is 64" in await start_failure(model, addresses, max_context=100)


async def test_families_with_state_of_their_own_are_refused_at_start(tmp_path: Path) -> None:
    model = save_tiny("lfm2_moe", tmp_path / "lfm2_moe")
    message = await start_failure(model, ["127.0.0.1:1"])
    assert "conv" in message


async def test_a_router_that_starts_says_what_it_is_at(olmoe: Path) -> None:
    address, nobody = free_addresses(2)
    settings = RouterSettings(
        listen=address, model=olmoe, experts=[nobody], drain_seconds=0, kv_memory="64MiB"
    )
    said: set[str] = set()
    async with asyncio.TaskGroup() as tasks, open_channel(address) as channel:
        running = tasks.create_task(router_app.run(settings))
        stub = router_pb2_grpc.RouterServiceStub(channel)
        while not any(StartPhase.EXPERTS.value in text for text in said):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Describe(router_pb2.RouterServiceDescribeRequest(), wait_for_ready=True)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            said.add(raised.value.details() or "")
        running.cancel()
    assert said <= {f"{NOT_READY}{phase.value}" for phase in StartPhase}
