"""Rows that are not finite, taken out of what services returned: their pairs have failed."""

import numpy as np
import torch

from services.router.arrays import Indices, Mask
from services.router.dispatch.combine import Returned
from services.router.dispatch.failure import FailedPairs, ServiceFailure
from services.router.dispatch.scatter import Outgoing
from services.router.times.retry_reasons import NOT_FINITE
from services.wire.row_bytes import bytes_of, finite_rows


def take_out_not_finite(
    returned: list[Returned], outgoing: Outgoing, *, are_sums: bool
) -> list[FailedPairs]:
    """Leave in `returned` what is finite; the pairs of the rest, by service.

    Where what was sent is not finite itself nothing else can come back. `are_sums` says that a
    frame's rows are answered once, else its pairs are.
    """
    was_finite, failed = finite_rows(outgoing.hidden), []
    for index, part in enumerate(returned):
        rows = part.rows(outgoing.hidden.shape[1])
        tokens = part.pairs.rows if are_sums else part.positions // outgoing.top_k
        is_bad = ~finite_rows(rows) & was_finite[tokens]
        if is_bad.any():
            lost = np.isin(part.positions // outgoing.top_k, tokens[is_bad]) if are_sums else is_bad
            if lost.any():  # else it is the sum of pairs that were not computed anyway
                failed.append(_failed(part, part.positions[lost], outgoing))
            kept = _without_rows(rows, is_bad) if are_sums else rows[torch.from_numpy(~is_bad)]
            data = memoryview(bytes_of(kept))
            returned[index] = Returned(
                part.pairs, part.positions[~lost], data, part.dtype, part.address
            )
    return failed


def _without_rows(rows: torch.Tensor, is_bad: Mask) -> torch.Tensor:
    """With zeros in their places, which add nothing."""
    kept = rows.clone()
    kept[torch.from_numpy(is_bad)] = 0
    return kept


def _failed(part: Returned, positions: Indices, outgoing: Outgoing) -> FailedPairs:
    message = (
        f"expert {outgoing.experts[positions[0]]} of layer {outgoing.layer} was not computed by "
        f"{part.address}: it returned numbers that are not finite"
    )
    return FailedPairs(
        positions, ServiceFailure(part.address, NOT_FINITE, message, verdict=NOT_FINITE)
    )
