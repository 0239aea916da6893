"""Draws the next token from logits, so that a draw depends on (seed, position) and the logits alone."""

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """How a sequence's tokens are drawn; the fields mean what `SamplingParameters` in common.proto says."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) made from (seed, position) alone.

    Counter-based: a resumed or retried request draws what it would have drawn.
    """
    digest = hashlib.blake2b(position.to_bytes(8, "little"), digest_size=8, key=seed.to_bytes(8, "little"))
    return float(int.from_bytes(digest.digest(), "little") >> 11) / float(1 << 53)


def draw(logits: torch.Tensor, sampling: Sampling, position: int) -> int:
    """The token at `position` of a sequence, from `logits` [vocabulary].

    Filters apply in the order temperature, top-k, top-p, min-p, as in transformers; ties keep the smaller token id.
    """
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    scaled = logits.double() / sampling.temperature
    if not scaled.isfinite().all():  # so near to zero that it is zero
        return int(logits.argmax())
    probabilities = torch.softmax(scaled, dim=-1)
    ordered, tokens = torch.sort(probabilities, descending=True, stable=True)
    kept = ordered[: _num_kept(ordered, sampling)]
    cumulative = kept.cumsum(0)
    point = uniform(sampling.seed, position) * float(cumulative[-1])
    index = int(torch.searchsorted(cumulative, point, right=True))
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
