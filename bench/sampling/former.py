"""How rows were drawn from before: probabilities in float64, and the whole row in order where the
likeliest tokens do not decide.
"""

from collections.abc import Sequence

import torch

from services.model.sampler import uniform
from services.wire.sampling import Sampling

NUM_CANDIDATES = 64


def draw_formerly(
    logits: torch.Tensor, samplings: Sequence[Sampling], positions: Sequence[int]
) -> list[int]:
    """The tokens of rows that have a temperature, and no filter but top-p."""
    temperatures = torch.tensor([each.temperature for each in samplings], dtype=torch.float64)
    probabilities = torch.softmax(logits / temperatures[:, None], dim=-1)
    best = probabilities.topk(NUM_CANDIDATES, dim=-1)
    return [
        _draw(row, found, tokens, sampling, uniform(sampling.seed, position))
        for row, found, tokens, sampling, position in zip(
            probabilities, best.values, best.indices, samplings, positions, strict=True
        )
    ]


def _draw(
    row: torch.Tensor,
    ordered: torch.Tensor,
    tokens: torch.Tensor,
    sampling: Sampling,
    point: float,
) -> int:
    whole = float(row.sum())
    wanted = sampling.top_p if sampling.top_p < 1.0 else point
    if float(ordered.sum()) <= wanted * whole:  # they do not decide
        ordered, tokens = torch.sort(row, descending=True, stable=True)
    cumulative = ordered.cumsum(0)
    if sampling.top_p < 1.0:
        whole = float(cumulative[int((cumulative < sampling.top_p * whole).sum())])
    place = int(torch.searchsorted(cumulative, point * whole, right=True))
    return int(tokens[min(place, len(tokens) - 1)])
