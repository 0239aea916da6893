"""Draws the next tokens from logits, so that a draw depends on (seed, position) and the row's
logits alone.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from services import kernels
from services.model.shaping import Shaping
from services.wire.sampling import Sampling


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) made from (seed, position) alone.

    Counter-based: a resumed or retried request draws what it would have drawn.
    """
    digest = hashlib.blake2b(
        position.to_bytes(8, "little"), digest_size=8, key=seed.to_bytes(8, "little")
    )
    return float(int.from_bytes(digest.digest(), "little") >> 11) / float(1 << 53)


def are_finite(rows: torch.Tensor) -> list[bool]:
    """Whether all of each row is finite: of `rows` [n, width] n truths."""
    # Two reductions cost a tenth of looking at every element; either of them hands a NaN on.
    if rows.is_cpu:
        numbers = rows.numpy()
        finite: list[bool] = (np.isfinite(numbers.max(-1)) & np.isfinite(numbers.min(-1))).tolist()
    else:
        finite = (rows.amax(dim=-1).isfinite() & rows.amin(dim=-1).isfinite()).tolist()
    return finite


def draw_all(
    logits: torch.Tensor,
    samplings: Sequence[Sampling],
    positions: Sequence[int],
    shapings: Sequence[Shaping | None] = (),
) -> list[int]:
    """The token at each position, from the rows of `logits` [sequences, vocabulary] in float32;
    rows do not affect each other.

    `shapings`, where there are any, come first; filters then apply in the order temperature,
    top-k, top-p, min-p, as in transformers; ties keep the smaller token id.
    """
    if not any(shapings) and not any(sampling.temperature for sampling in samplings):
        return _likeliest(logits)
    if kernels.AVAILABLE:  # which draw sooner on the CPU than a device puts a row in order
        logits = logits.cpu().contiguous()
    rows = list(logits)
    for place, shaping in enumerate(shapings):
        if shaping is not None:
            rows[place] = shaping.shaped(rows[place])
    points = [
        uniform(sampling.seed, position) if sampling.temperature else 0.0
        for sampling, position in zip(samplings, positions, strict=True)
    ]
    if kernels.AVAILABLE:
        choices = [
            (each.temperature, each.top_k, each.top_p, each.min_p, point)
            for each, point in zip(samplings, points, strict=True)
        ]
        tokens = kernels.draw(rows, choices)
    else:
        tokens = [None] * len(rows)
    return [
        _draw_row(rows[place], samplings[place], points[place]) if token is None else token
        for place, token in enumerate(tokens)
    ]


def _likeliest(logits: torch.Tensor) -> list[int]:
    # NumPy compares many numbers at once, torch one after the other: a tenth of the time.
    highest = logits.numpy().argmax(-1) if logits.is_cpu else logits.argmax(dim=-1)
    return highest.tolist()


def draw(logits: torch.Tensor, sampling: Sampling, position: int) -> int:
    """The token at `position` of one sequence, from `logits` [vocabulary], as
    `draw_all` draws it.
    """
    return draw_all(logits[None], [sampling], [position])[0]


def _draw_row(row: torch.Tensor, sampling: Sampling, point: float) -> int:
    """The draw from a whole row put in order."""
    if not sampling.temperature:
        return int(row.argmax())
    # Differences first: at a temperature next to zero the highest logit stays, and no infinity.
    ordered, tokens = torch.sort(row, descending=True, stable=True)
    below = (ordered.double() - ordered[0]) / sampling.temperature
    return _draw_ordered(tokens, torch.softmax(below, dim=-1), sampling, point)


def _draw_ordered(
    tokens: torch.Tensor, ordered: torch.Tensor, sampling: Sampling, point: float
) -> int:
    kept = ordered[: _num_kept(ordered, sampling)]
    cumulative = kept.cumsum(0)
    index = int(torch.searchsorted(cumulative, point * float(cumulative[-1]), right=True))
    return int(tokens[min(index, len(kept) - 1)])


def _num_kept(ordered: torch.Tensor, sampling: Sampling) -> int:
    num_kept = len(ordered)
    if sampling.top_k:
        num_kept = min(num_kept, sampling.top_k)
    if sampling.top_p < 1.0:
        share = ordered[:num_kept] / ordered[:num_kept].sum()
        # The token that reaches top_p is kept; so is always one.
        num_kept = min(num_kept, int((share.cumsum(0) < sampling.top_p).sum()) + 1)
    if sampling.min_p > 0.0:
        num_kept = min(num_kept, int((ordered >= sampling.min_p * ordered[0]).sum()))
    return max(1, num_kept)
