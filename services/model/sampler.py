"""Draws the next tokens from logits, so that a draw depends on (seed, position) and the row's
logits alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from services import kernels
from services.model.shaping import Shaping
from services.wire.sampling import Sampling

# Nearly all of the probability lies in so many tokens, and to find them is cheap where to sort all
# is not.
NUM_CANDIDATES = 64
# Sums of a vocabulary's probabilities in two orders differ by less than this share.
ROUNDING = 1e-9


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
    """The token at each position, from the rows of `logits` [sequences, vocabulary]; rows do not
    affect each other.

    `shapings`, where there are any, come first; filters then apply in the order temperature,
    top-k, top-p, min-p, as in transformers; ties keep the smaller token id.
    """
    if any(shapings):
        logits = _shaped(logits, shapings)
    tokens = _likeliest(logits)
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0.0]
    if not drawn:
        return tokens
    rows = logits if len(drawn) == len(logits) else logits[drawn]
    probabilities = _probabilities(rows, [samplings[row].temperature for row in drawn])
    points = [uniform(samplings[row].seed, positions[row]) for row in drawn]
    likely = _draw_likely(probabilities, [samplings[row] for row in drawn], points)
    for place, (row, token) in enumerate(zip(drawn, likely, strict=True)):
        if token is None:
            token = _draw_of_all(probabilities[place], samplings[row], points[place])
        tokens[row] = token
    return tokens


def _probabilities(rows: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """Of `rows` [n, vocabulary] at their temperatures, in float64; what is -inf has none."""
    # Differences first: at a temperature next to zero the highest logit stays, and no infinity.
    below = rows.double() - rows.amax(dim=-1, keepdim=True)
    divisors = torch.tensor(temperatures, dtype=torch.float64).to(rows.device)
    return torch.softmax(below / divisors[:, None], dim=-1)


def _draw_likely(
    probabilities: torch.Tensor, samplings: Sequence[Sampling], points: Sequence[float]
) -> list[int | None]:
    """Each row's draw, or None where only the whole row in order, and the rounding of its sum, tell
    it.
    """
    if kernels.AVAILABLE and probabilities.is_cpu:
        choices = [
            (sampling.top_k, sampling.top_p, sampling.min_p, point)
            for sampling, point in zip(samplings, points, strict=True)
        ]
        return kernels.draw(probabilities, choices)
    best, ordered = _most_likely(probabilities)
    totals = probabilities.sum(dim=-1).tolist()
    return [
        _draw_of_most_likely(*row)
        for row in zip(best, ordered, totals, samplings, points, strict=True)
    ]


def _shaped(logits: torch.Tensor, shapings: Sequence[Shaping | None]) -> torch.Tensor:
    return torch.stack(
        [
            row if shaping is None else shaping.shaped(row)
            for row, shaping in zip(logits, shapings, strict=True)
        ]
    )


def _likeliest(logits: torch.Tensor) -> list[int]:
    # NumPy compares many numbers at once, torch one after the other: a tenth of the time.
    highest = logits.numpy().argmax(-1) if logits.is_cpu else logits.argmax(dim=-1)
    return highest.tolist()


def draw(logits: torch.Tensor, sampling: Sampling, position: int) -> int:
    """The token at `position` of one sequence, from `logits` [vocabulary], as
    `draw_all` draws it.
    """
    return draw_all(logits[None], [sampling], [position])[0]


def _most_likely(probabilities: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Tokens and probabilities of each row: the beginning of a stable sort of the whole row by
    falling probability.
    """
    num_candidates = min(NUM_CANDIDATES, probabilities.shape[-1])
    tokens = probabilities.topk(num_candidates, dim=-1, sorted=False).indices.sort(dim=-1).values
    ordered, places = probabilities.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
    tokens, ordered = tokens.gather(-1, places).cpu(), ordered.cpu()
    # Others of the last one's probability, and with a smaller id, may have been left out.
    lengths = (ordered > ordered[:, -1:]).sum(dim=-1).tolist()
    return (
        [row[:length] for row, length in zip(tokens, lengths, strict=True)],
        [row[:length] for row, length in zip(ordered, lengths, strict=True)],
    )


def _draw_of_most_likely(
    tokens: torch.Tensor, ordered: torch.Tensor, total: float, sampling: Sampling, point: float
) -> int | None:
    """The draw, or None where tokens that were left out, or the rounding of `total`, could alter
    it.
    """
    if not len(ordered) or sampling.top_k > len(ordered):
        return None
    if sampling.top_k:
        return _draw_ordered(tokens, ordered, sampling, point)
    if sampling.top_p < 1.0:
        reached = _place(ordered.cumsum(0), sampling.top_p * total, right=False)
        if reached is None:
            return None
        kept = slice(reached + 1)
        return _draw_ordered(tokens[kept], ordered[kept], replace(sampling, top_p=1.0), point)
    if sampling.min_p > 0.0:
        is_cut = bool(ordered[-1] < sampling.min_p * ordered[0])
        return _draw_ordered(tokens, ordered, sampling, point) if is_cut else None
    index = _place(ordered.cumsum(0), point * total, right=True)
    return None if index is None else int(tokens[index])


def _place(cumulative: torch.Tensor, bound: float, *, right: bool) -> int | None:
    """The first place at which `bound` is reached (with `right`, passed), or None where that is not
    certain.
    """
    bounds = torch.tensor([bound * (1 - ROUNDING), bound * (1 + ROUNDING)], dtype=torch.float64)
    earliest, latest = torch.searchsorted(cumulative, bounds, right=right).tolist()
    return int(earliest) if earliest == latest < len(cumulative) else None


def _draw_of_all(probabilities: torch.Tensor, sampling: Sampling, point: float) -> int:
    ordered, tokens = torch.sort(probabilities, descending=True, stable=True)
    return _draw_ordered(tokens, ordered, sampling, point)


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
