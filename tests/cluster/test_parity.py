"""The cluster computes what the whole model in one process computes, over real gRPC with three
expert services.
"""

from pathlib import Path

import pytest
import torch

import services.model
from tests.checkpoints import SERVED_FAMILIES, VOCAB_SIZE, save_tiny
from tests.cluster import local
from tests.cluster.oracle import LogitsRecord, Oracle, prompts_of
from tests.cluster.router_client import Outcome, connected

TESSERA = Path(services.model.__file__).parent / "tessera"
LENGTHS = [1, 2, 3, 5, 8, 11, 13, 16, 17, 19, 23, 29, 31, 37, 41, 47]
NEW_TOKENS = 6
FP32_TOLERANCE = 1e-4
MOST_OTHERS = {"float32": 0.0, "bfloat16": 0.1}


async def assert_parity(
    model: Path,
    dtype: str,
    vocab_size: int,
    monkeypatch: pytest.MonkeyPatch,
    record: pytest.FixtureRequest,
) -> None:
    oracle = Oracle(model, getattr(torch, dtype))
    logits = LogitsRecord(monkeypatch)
    compared = []
    async with local.experts(model, 3, dtype=dtype) as addresses:
        for lanes in (1, 3):
            async with (
                local.router(
                    model, addresses, dtype=dtype, lanes=lanes, max_batch_tokens=64
                ) as address,
                connected(address) as client,
            ):
                crowd = prompts_of(LENGTHS, vocab_size, seed=lanes)
                alone = prompts_of([9], vocab_size, seed=10 + lanes)
                for prompts in (alone, crowd):
                    # With them the rows that are read are others, so that both ways are compared.
                    asked = {"top_logprobs": 20, "prompt_logprobs": True} if lanes == 1 else {}
                    outcomes = await client.generate(prompts, max_new_tokens=NEW_TOKENS, **asked)
                    for prompt, outcome in zip(prompts, outcomes, strict=True):
                        if dtype == "float32" and asked:
                            assert_likelihoods(oracle, prompt, outcome)
                        compared.append(
                            oracle.compare(prompt, outcome.tokens, logits.of_prompt(prompt))
                        )
    assert len(compared) == 2 * (1 + len(LENGTHS))
    worst = max(comparison.largest_difference for comparison in compared)
    others = sum(comparison.num_other_tokens for comparison in compared)
    total = sum(comparison.num_tokens for comparison in compared)
    record.node.user_properties.append(
        ("parity", f"worst {worst:.1e}, {others} of {total} tokens differ")
    )
    assert [excuse for comparison in compared for excuse in comparison.unexcused] == []
    # Random bfloat16 gates choose by less than their noise all the time; how many tokens that
    # alters is bounded.
    assert others <= MOST_OTHERS[dtype] * total
    if dtype == "float32":
        assert worst <= FP32_TOLERANCE


def assert_likelihoods(oracle: Oracle, prompt: tuple[int, ...], outcome: Outcome) -> None:
    """What was said of the prompt's tokens and of the others is what transformers finds."""
    tokens = [*prompt, *outcome.tokens]
    expected = oracle.logprobs(tokens[:-1])
    said = outcome.prompt_logprobs + outcome.logprobs
    assert [each.token.token_id for each in said] == tokens[1:]
    for row, position in zip(expected, said, strict=True):
        most_likely = row.topk(20).values.tolist()
        named = (position.token, *position.top)
        found = torch.tensor([each.logprob for each in named])
        assert (found - row[[each.token_id for each in named]]).abs().max() <= FP32_TOLERANCE
        assert found[1:].tolist() == pytest.approx(most_likely, abs=FP32_TOLERANCE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", SERVED_FAMILIES)
async def test_every_family_matches_transformers(
    family: str,
    dtype: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    model = save_tiny(family, tmp_path / family, getattr(torch, dtype))
    await assert_parity(model, dtype, VOCAB_SIZE, monkeypatch, request)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_the_shipped_model_matches_transformers(
    dtype: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    await assert_parity(TESSERA, dtype, 4096, monkeypatch, request)
