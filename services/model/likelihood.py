"""How likely a model finds a token, and which ones it finds most likely, from its logits as they
are.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

# Tokens of which the highest logit is looked at first, to leave most of a vocabulary aside.
BLOCK = 64


class Likelihood(NamedTuple):
    """Of one position: its token, the natural logarithm of its probability, and the most likely
    tokens there with theirs, most likely first, of equals the lower token.
    """

    token: int
    logprob: float
    top: list[tuple[int, float]]


def likelihood(row: torch.Tensor, token: int, num_top: int) -> Likelihood:
    """That of `token` by a row of logits [vocabulary] in float32, all finite, with the `num_top`
    most likely ones. It depends on the row alone.
    """
    logits = row.cpu().numpy()
    highest = logits.max()
    with np.errstate(over="ignore"):  # what lies that far below has no part in the sum
        log_sum = float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))

    def logprob(token: int) -> float:
        return float(logits[token]) - float(highest) - log_sum

    top = [(each, logprob(each)) for each in _most_likely(logits, num_top)]
    return Likelihood(token, logprob(token), top)


def _most_likely(logits: npt.NDArray[np.float32], count: int) -> list[int]:
    count = min(count, len(logits))
    if not count:
        return []
    # As many blocks have one at least as high as the lowest of their highest ones.
    starts = np.arange(0, len(logits), BLOCK)
    highest_of = np.maximum.reduceat(logits, starts)
    num_blocks = min(count, len(starts))
    least = np.partition(highest_of, len(starts) - num_blocks)[len(starts) - num_blocks]
    if num_blocks < count:  # too few blocks to tell
        least = -np.inf
    candidates = np.flatnonzero(logits >= least)
    order = np.argsort(-logits[candidates], kind="stable")[:count]
    most_likely: list[int] = candidates[order].tolist()
    return most_likely
