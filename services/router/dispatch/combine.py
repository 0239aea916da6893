"""How what the services return becomes a layer's output: pairs' rows weighted here, or services'
sums added up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from services import kernels
from services.model.weighted_sums import weighted_sums
from services.router.arrays import Indices
from services.router.dispatch.frame_pairs import FramePairs
from services.wire.row_bytes import are_finite, rows_of


@dataclass(slots=True)
class Returned:
    """What the service at `address` made of a frame's pairs: the positions of those it computed,
    and bytes of whole rows of `dtype`.
    """

    pairs: FramePairs
    positions: Indices
    data: memoryview
    dtype: torch.dtype
    address: str = ""

    def rows(self, hidden_size: int) -> torch.Tensor:
        """View the rows, [pairs or rows, hidden]; never write to it."""
        return rows_of(self.data, self.dtype, hidden_size)


class Sums(NamedTuple):
    """A layer's output, and whether all of it is finite, without which some row that was returned
    may not be.
    """

    output: torch.Tensor
    are_finite: bool


class Combination(Protocol):
    """One of the two ways.

    With `sums_on_services` frames carry the pairs' weights, and a service returns each row's sum.
    """

    sums_on_services: bool

    def num_rows(self, pairs: FramePairs, num_computed: int) -> int:
        """How many rows a service returns for a frame of which it computed so many pairs."""

    def __call__(
        self, returned: Sequence[Returned], weights: torch.Tensor, hidden: torch.Tensor
    ) -> Sums:
        """The layer's output [tokens, width] like `hidden`, of `weights` [tokens, k].

        Rows of pairs that were not computed are wrong; their sequences have ended.
        """


class ExactCombine:
    """Weighs and sums in slot order, so that bits depend neither on who computed a row nor on the
    order of replies.
    """

    sums_on_services = False

    def num_rows(self, pairs: FramePairs, num_computed: int) -> int:
        return num_computed

    def __call__(
        self, returned: Sequence[Returned], weights: torch.Tensor, hidden: torch.Tensor
    ) -> Sums:
        if kernels.AVAILABLE and returned and hidden.is_cpu:
            dtype, width = returned[0].dtype, hidden.shape[1]
            if kernels.combines(dtype, weights, width, hidden.dtype):
                replies = [(part.data, part.positions) for part in returned]
                return Sums(*kernels.combine(replies, weights, width, dtype, hidden.dtype))
        in_order = self._in_order(returned, weights.numel(), hidden.shape[1])
        rows = in_order.to(hidden.device, non_blocking=True)
        weighted = rows.view(*weights.shape, -1) * weights[..., None]
        # A sum of one term is that term; torch takes several times as long for it as for the
        # product.
        sums = (weighted.sum(1) if weights.shape[1] > 1 else weighted[:, 0]).to(hidden.dtype)
        # Looking at sums on a device would wait for it.
        return Sums(sums, are_finite(sums if sums.is_cpu else in_order))

    @staticmethod
    def _in_order(returned: Sequence[Returned], num_pairs: int, hidden_size: int) -> torch.Tensor:
        """The rows of all pairs, [pairs, hidden]; never write to it. Of a pair that was not
        computed they are zero.
        """
        if len(returned) == 1 and len(returned[0].positions) == num_pairs:
            return returned[0].rows(hidden_size)  # all of them, in order already
        if not returned:
            return torch.zeros(num_pairs, hidden_size)
        is_whole = sum([len(part.positions) for part in returned]) == num_pairs
        make = torch.empty if is_whole else torch.zeros
        gathered = make(num_pairs, hidden_size, dtype=returned[0].dtype)
        for part in returned:
            gathered.index_copy_(0, torch.from_numpy(part.positions), part.rows(hidden_size))
        return gathered


class PartialCombine:
    """Adds the services' sums in float32, in the order of services; bits depend on who computes
    what.
    """

    sums_on_services = True

    def num_rows(self, pairs: FramePairs, num_computed: int) -> int:
        return len(pairs.rows) if num_computed else 0

    def __call__(
        self, returned: Sequence[Returned], weights: torch.Tensor, hidden: torch.Tensor
    ) -> Sums:
        parts = [part for part in returned if part.data]
        if not parts:
            return Sums(torch.zeros_like(hidden), are_finite=True)
        rows = [part.rows(hidden.shape[1]) for part in parts]
        if len(parts) == 1 and len(rows[0]) == len(hidden):
            # The sums of all rows, in order already.
            return Sums(rows[0].to(hidden.device, hidden.dtype), are_finite(rows[0]))
        tokens = np.concatenate([part.pairs.rows for part in parts])
        sums = weighted_sums(torch.cat(rows), tokens, len(hidden), None).to(hidden.dtype)
        return Sums(sums.to(hidden.device, non_blocking=True), are_finite(sums))
