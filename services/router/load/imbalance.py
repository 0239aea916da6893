"""How unevenly a layer's work falls on the services: the figures that a placement is judged by."""

from typing import Any

import numpy as np
import numpy.typing as npt

from services.router.arrays import Counts

Numbers = npt.NDArray[np.float64]


def imbalance(pairs: npt.NDArray[Any]) -> Numbers:
    """(max - mean) / mean over services of the pairs that each computes in one layer and step:
    [...], 0 for even.

    `pairs` is [..., services], services without any among them: they count in the mean. A layer
    that has no pairs is even. What waits for the hottest service is 1 + imbalance times what it
    would be if all computed alike.
    """
    mean = pairs.mean(axis=-1)
    excess = pairs.max(axis=-1) - mean
    ratio: Numbers = np.divide(excess, mean, out=np.zeros(mean.shape), where=mean > 0)
    return ratio


def active_experts(pairs: npt.NDArray[Any]) -> Counts:
    """The distinct experts that each service computes for: [..., services], of `pairs` [...,
    services, experts].
    """
    return np.asarray(np.count_nonzero(pairs, axis=-1), dtype=np.int64)


def active_excess(pairs: npt.NDArray[Any]) -> Numbers:
    """The hottest service's distinct experts ÷ the fewest that it could have: [...], 1 for the
    best.

    `pairs` is [..., services, experts]. The fewest are all active experts, each counted once
    however many services compute for it, shared out evenly and rounded up; a layer without any is
    at its best.
    """
    hottest = active_experts(pairs).max(axis=-1)
    num_active = np.count_nonzero(pairs.any(axis=-2), axis=-1)
    fewest = -(-num_active // pairs.shape[-2])
    ratio: Numbers = np.divide(hottest, fewest, out=np.ones(fewest.shape), where=fewest > 0)
    return ratio
