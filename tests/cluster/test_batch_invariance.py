"""With `batch_invariant`, a request's bits are its own: company, chunking, lanes and placement do
not show.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import services.model
from moesaic.v1 import common_pb2
from tests.checkpoints import save_tiny
from tests.cluster import local
from tests.cluster.everything import STOP_TOKEN, everything
from tests.cluster.oracle import LogitsRecord, prompts_of
from tests.cluster.router_client import Outcome, connected

TESSERA = Path(services.model.__file__).parent / "tessera"
NEW_TOKENS = 8
VOCAB = 300


ASKED: dict[str, Any] = {
    **everything(VOCAB),
    "stop_token_ids": [STOP_TOKEN],
    "min_new_tokens": NEW_TOKENS,
}


async def logits_of(
    model: Path,
    prompts: list[tuple[int, ...]],
    num_experts: int,
    record: LogitsRecord,
    dtype: str,
    **settings: int | str,
) -> list[torch.Tensor]:
    """The logits of every draw for each prompt, all submitted together."""
    await _generated(model, prompts, num_experts, dtype, {}, settings)
    return [record.of_prompt(prompt) for prompt in prompts]


async def outcomes_of(
    model: Path,
    prompts: list[tuple[int, ...]],
    num_experts: int,
    record: LogitsRecord,
    dtype: str,
    **settings: int | str,
) -> list[tuple[torch.Tensor, list[int], list[common_pb2.PositionLogprobs]]]:
    """For each prompt, all submitted together: the logits of every draw, the tokens, and what was
    said of how likely they and the prompt's were.
    """
    outcomes = await _generated(model, prompts, num_experts, dtype, ASKED, settings)
    for prompt, outcome in zip(prompts, outcomes, strict=True):
        assert len(outcome.tokens) == len(outcome.logprobs) == NEW_TOKENS
        assert [each.token.token_id for each in outcome.prompt_logprobs] == list(prompt[1:])
    return [
        (record.of_prompt(prompt), each.tokens, each.prompt_logprobs + each.logprobs)
        for prompt, each in zip(prompts, outcomes, strict=True)
    ]


async def _generated(
    model: Path,
    prompts: list[tuple[int, ...]],
    num_experts: int,
    dtype: str,
    asked: Mapping[str, Any],
    settings: Mapping[str, int | str],
) -> list[Outcome]:
    numerics = {"dtype": dtype, "batch_invariant": True}
    async with (
        local.experts(model, num_experts, **numerics) as addresses,
        local.router(model, addresses, **numerics, **settings) as address,
        connected(address) as client,
    ):
        return await client.generate(prompts, max_new_tokens=NEW_TOKENS, **asked)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["tessera", "deepseek_v3", "gpt_oss", "qwen2_moe", "mixtral"])
async def test_a_request_gets_the_same_bits_in_any_company(
    family: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = (
        TESSERA
        if family == "tessera"
        else save_tiny(family, tmp_path / family, getattr(torch, dtype))
    )
    subject, *crowd = prompts_of([37, 1, 5, 18, 33, 52], VOCAB)
    record = LogitsRecord(monkeypatch)
    (alone,) = await outcomes_of(model, [subject], 1, record, dtype)
    (chunked,) = await outcomes_of(
        model, [subject], 5, record, dtype, max_batch_tokens=8, max_sequences=8
    )
    first_of_crowd = (
        await outcomes_of(
            model, [subject, *crowd], 5, record, dtype, max_batch_tokens=24, max_sequences=8
        )
    )[0]
    last_of_crowd = (await outcomes_of(model, [*crowd, subject], 2, record, dtype, lanes=3))[-1]
    for other in (chunked, first_of_crowd, last_of_crowd):
        assert torch.equal(alone[0], other[0])
        assert alone[1:] == other[1:]


async def test_without_the_mode_bits_do_depend_on_company(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: were this to hold without the mode, the test above would show nothing."""
    model = save_tiny("mixtral", tmp_path / "mixtral")
    subject, *crowd = prompts_of([37, 1, 5, 18, 33, 52], VOCAB)
    record = LogitsRecord(monkeypatch)
    async with local.experts(model, 2) as addresses, local.router(model, addresses) as address:
        async with connected(address) as client:
            await client.generate([subject], max_new_tokens=NEW_TOKENS)
            alone = record.of_prompt(subject)
            await client.generate([*crowd, subject], max_new_tokens=NEW_TOKENS)
    assert not torch.equal(alone, record.of_prompt(subject))
