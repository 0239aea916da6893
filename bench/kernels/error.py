"""Which of several ways to compute a model in bfloat16 is nearest to the same checkpoint in
float32.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from bench.harness.statistics import spread_of
from bench.harness.table import Table
from bench.kernels.load import KernelLoad
from bench.rig.prompts import text_prompts

NUM_PROMPTS, PROMPT_TOKENS, TEXT_TOKENS = 16, 64, 48
TRANSFORMERS = "transformers, bfloat16"
HEADINGS = (
    "",
    "mean |Δlogit|",
    "by request",
    "largest",
    "other likeliest tokens, %",
    "nearer than transformers, %",
    "transformers' bits, %",
)

Tokens = Sequence[Sequence[int]]


def passages() -> tuple[Tokens, Tokens]:
    """Prompts, and how the book goes on from each."""
    whole = text_prompts(NUM_PROMPTS, PROMPT_TOKENS + TEXT_TOKENS)
    return [ids[:PROMPT_TOKENS] for ids in whole], [ids[PROMPT_TOKENS:] for ids in whole]


async def error_table(model: Path, loads: Mapping[str, KernelLoad]) -> Table:
    """How far transformers and ours, by their names, are from transformers in float32 on the same
    tokens.
    """
    prompts, text = passages()
    exact = transformers_logits(model, torch.float32, prompts, text)
    found = {TRANSFORMERS: transformers_logits(model, torch.bfloat16, prompts, text)}
    for name, load in loads.items():
        found[f"router and experts, bfloat16, {name}"] = await load.logits(prompts, text)
    return compared(exact, found)


def transformers_logits(
    model: Path, dtype: torch.dtype, prompts: Tokens, text: Tokens
) -> torch.Tensor:
    """Logits in float32 of each token of `text`, which goes on from `prompts`: [prompts, tokens,
    vocabulary].

    As `generate` computes them: the prompts in one forward as a static batch, then a forward for
    each token.
    """
    disable_progress_bar()
    whole = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, local_files_only=True).eval()
    logits, cache, tokens = [], None, torch.tensor(prompts)
    for following in torch.tensor(text).unbind(1):
        output = whole(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits.append(output.logits[:, -1].float())
        cache, tokens = output.past_key_values, following[:, None]
    return torch.stack(logits, dim=1)


def compared(exact: torch.Tensor, found: Mapping[str, torch.Tensor]) -> Table:
    """A row for each of `found`, TRANSFORMERS among them; all logits are [requests, tokens,
    vocabulary].

    The last columns are shares of tokens: for which the mean |Δlogit| is below transformers', and
    for which all logits are transformers'.
    """
    num_requests, num_tokens, _ = exact.shape
    title = (
        f"error against float32, the same {num_requests} x {num_tokens} tokens of real text read "
        "by all"
    )
    table = Table(title, HEADINGS)
    reference = found[TRANSFORMERS]
    of_reference = _of_tokens(reference, exact)
    for name, logits in found.items():
        errors = _of_tokens(logits, exact)
        is_reference = name == TRANSFORMERS
        table.add(
            name,
            float(errors.mean()),
            spread_of(errors.mean(1).tolist()),
            float((logits - exact).abs().max()),
            _percent(logits.argmax(2) != exact.argmax(2)),
            None if is_reference else _percent(errors < of_reference),
            None if is_reference else _percent((logits == reference).all(2)),
        )
    return table


def _of_tokens(logits: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """The mean |Δlogit| of each token, [requests, tokens]."""
    return (logits - exact).abs().mean(2)


def _percent(are: torch.Tensor) -> float:
    return 100 * float(are.float().mean())
