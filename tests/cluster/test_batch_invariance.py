"""With `batch_invariant`, a request's bits are its own: company, chunking, lanes and placement do
not show.
"""

from pathlib import Path

import pytest
import torch

import services.model
from tests.checkpoints import save_tiny
from tests.cluster import local
from tests.cluster.oracle import LogitsRecord, prompts_of
from tests.cluster.router_client import connected

TESSERA = Path(services.model.__file__).parent / "tessera"
NEW_TOKENS = 8
VOCAB = 300


async def logits_of(
    model: Path,
    prompts: list[tuple[int, ...]],
    num_experts: int,
    record: LogitsRecord,
    dtype: str,
    **settings: int | str,
) -> list[torch.Tensor]:
    """The logits of every draw for each prompt, all submitted together."""
    numerics = {"dtype": dtype, "batch_invariant": True}
    async with (
        local.experts(model, num_experts, **numerics) as addresses,
        local.router(model, addresses, **numerics, **settings) as address,
        connected(address) as client,
    ):
        await client.generate(prompts, max_new_tokens=NEW_TOKENS)
    return [record.of_prompt(prompt) for prompt in prompts]


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
    (alone,) = await logits_of(model, [subject], 1, record, dtype)
    (chunked,) = await logits_of(
        model, [subject], 5, record, dtype, max_batch_tokens=8, max_sequences=8
    )
    first_of_crowd = (
        await logits_of(
            model, [subject, *crowd], 5, record, dtype, max_batch_tokens=24, max_sequences=8
        )
    )[0]
    last_of_crowd = (await logits_of(model, [*crowd, subject], 2, record, dtype, lanes=3))[-1]
    assert torch.equal(alone, chunked)
    assert torch.equal(alone, first_of_crowd)
    assert torch.equal(alone, last_of_crowd)


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
