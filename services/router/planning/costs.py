"""What one layer costs a service: a fixed time, a time for each active expert, and a time for each pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Costs:
    """Nanoseconds of one layer in one step: fixed + expert x active experts + pair x pairs, each [services]."""

    fixed_nanos: Floats
    expert_nanos: Floats
    pair_nanos: Floats

    @classmethod
    def equal(cls, num_services: int, fixed_nanos: float, expert_nanos: float, pair_nanos: float) -> "Costs":
        """The same for every service."""
        fixed, expert, pair = (np.full(num_services, nanos) for nanos in (fixed_nanos, expert_nanos, pair_nanos))
        return cls(fixed, expert, pair)

    @classmethod
    def fitted(cls, samples: Sequence[Floats]) -> "Costs":
        """By least squares, none below 0, from each service's samples [n, 3]: active experts, pairs, nanoseconds.

        A service without samples counts as the mean of the others; where there are none at all, only pairs count.
        """
        known = [_fitted(rows) for rows in samples if len(rows)]
        mean = np.mean(known, axis=0) if known else np.array([0.0, 0.0, 1.0])
        rest = iter(known)
        fixed, expert, pair = np.array([next(rest) if len(rows) else mean for rows in samples]).reshape(-1, 3).T
        return cls(fixed, expert, pair)


def _fitted(rows: Floats) -> Floats:
    """Non-negative least squares: with three unknowns, the best of the eight ways to leave some out."""
    inputs = np.column_stack([np.ones(len(rows)), rows[:, :2]])
    best, least = np.zeros(3), float("inf")
    for used in chain.from_iterable(combinations(range(3), count) for count in range(4)):
        found = np.zeros(3)
        # Columns of one scale, so that what samples cannot tell apart is shared out evenly.
        scales = np.maximum(np.abs(inputs[:, used]).max(axis=0), 1e-9)
        found[list(used)] = np.linalg.lstsq(inputs[:, used] / scales, rows[:, 2], rcond=None)[0] / scales
        error = float(((inputs @ found - rows[:, 2]) ** 2).sum())
        if (found >= 0).all() and error < least * (1 - 1e-9):
            best, least = found, error
    return best
