"""Sums of rows that belong together, as a layer's experts are combined."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from services.wire.received import Weights

Positions: TypeAlias = npt.NDArray[np.int64]


def weighted_sums(
    rows: torch.Tensor, sum_of_row: Positions, num_sums: int, weights: Weights | None
) -> torch.Tensor:
    """Add row i of `rows` [rows, hidden], times `weights[i]`, to sum `sum_of_row[i]`; [num_sums,
    hidden] in float32.

    Each sum is made in float32 in the order of its rows, so that it depends on them alone. One of
    no rows is zero. `rows` is in the host's memory.
    """
    if not len(rows):
        return torch.zeros(num_sums, rows.shape[1])
    order = sum_of_row.argsort(kind="stable")
    starts = sum_of_row[order].searchsorted(np.arange(num_sums))
    # Up to ten times as fast as index_add_, which adds every row by an operation of its own.
    return F.embedding_bag(
        torch.from_numpy(order),
        rows.float(),
        torch.from_numpy(starts),
        mode="sum",
        per_sample_weights=None if weights is None else torch.from_numpy(weights[order]),
    )
