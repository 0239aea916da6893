"""Measures a model on held-out text: bits per byte by domain, and how the experts share
the tokens.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from train.gates import GateWatch
from train.recipe import Recipe
from train.windows import read_streams

MAX_WINDOWS = 80
ROWS = 8


@dataclass(frozen=True)
class DomainScore:
    """One domain's result; `load` is each expert's share of the layer's work, [layers, experts]."""

    bits_per_byte: float
    top_1: float
    load: torch.Tensor


@torch.no_grad()
def score_domains(model: PreTrainedModel, work: Path, recipe: Recipe) -> dict[str, DomainScore]:
    """Scores the first windows of every domain's held-out stream."""
    sizes = json.loads((work / "sizes.json").read_text())
    watch = GateWatch(model, recipe.shape.experts)
    scores = {}
    for domain, stream in read_streams(work, list(recipe.mix), "held_out").items():
        num_windows = min(MAX_WINDOWS, (len(stream) - 1) // recipe.window)
        tokens = torch.from_numpy(stream[: num_windows * recipe.window + 1].astype("int64"))
        tokens_held, bytes_held = sizes[f"{domain}.held_out"]
        scores[domain] = _score(model, watch, tokens, recipe.window, bytes_held / tokens_held)
    return scores


def _score(
    model: PreTrainedModel,
    watch: GateWatch,
    tokens: torch.Tensor,
    window: int,
    bytes_per_token: float,
) -> DomainScore:
    inputs, targets = tokens[:-1].view(-1, window), tokens[1:].view(-1, window)
    loss, hits, counts = 0.0, 0, torch.zeros(())
    for rows, wanted in zip(inputs.split(ROWS), targets.split(ROWS), strict=True):
        logits = model(rows, use_cache=False).logits.flatten(0, 1).float()
        loss += nn.functional.cross_entropy(logits, wanted.flatten(), reduction="sum").item()
        hits += int((logits.argmax(-1) == wanted.flatten()).sum())
        counts = counts + watch.counts()
    bits = loss / math.log(2) / targets.numel()
    return DomainScore(
        bits / bytes_per_token, hits / targets.numel(), counts / counts.sum(-1, keepdim=True)
    )


def mixed_load(scores: dict[str, DomainScore], mix: dict[str, float]) -> torch.Tensor:
    """The load when the domains come in the proportions of training, [layers, experts]."""
    total = sum(mix.values())
    return sum(
        (scores[domain].load * (weight / total) for domain, weight in mix.items()),
        start=torch.zeros(()),
    )
