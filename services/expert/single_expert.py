"""One expert of a family's `*Experts` module, computed on its own."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from services.model.tiles import TILE_ROWS, pad_rows
from services.model.transformers_internals import gate_of

# Below this many elements torch computes an elementwise operation in one piece; above, it splits it
# between threads anywhere, and the ends of the pieces are rounded by other code.
ELEMENTWISE_PIECE = 32_767


class SingleExpert:
    """One expert of an `*Experts` module by its weights, in the order of operations of
    transformers' `grouped_mm` path.

    Source: `grouped_mm_experts_forward` in `transformers.integrations.moe`, for a group of one
    expert; the activation is the family's own. Calling it costs a few tensor operations, whatever
    else the module holds.
    """

    def __init__(self, module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
        experts: Any = module
        into = "gate_up_proj" if experts.has_gate else "up_proj"
        self._up = _as_linear(
            weights[into], experts.is_transposed
        )  # [2 * intermediate or intermediate, hidden]
        self._down = _as_linear(
            weights["down_proj"], experts.is_transposed
        )  # [hidden, intermediate]
        self._up_bias = self._down_bias = None
        if experts.has_bias:
            self._up_bias, self._down_bias = weights[f"{into}_bias"], weights["down_proj_bias"]
        self._activate = gate_of(experts) if experts.has_gate else experts.act_fn
        self._norm = experts.post_expert_norm if experts.has_post_expert_norm else None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] to [rows, hidden], not weighted by the gate."""
        return self._leave(self._activate(self._enter(rows)))

    def in_tiles(self, rows: torch.Tensor) -> torch.Tensor:
        """The same, tile by tile, so that a row's bits do not depend on the rows beside it nor on
        their number.
        """
        tiles = [self._tile(tile) for tile in pad_rows(rows).split(TILE_ROWS)]
        return torch.cat(tiles)[: len(rows)]

    def _tile(self, tile: torch.Tensor) -> torch.Tensor:
        entered = self._enter(tile)
        strip = max(1, ELEMENTWISE_PIECE // entered.shape[1])
        if strip >= TILE_ROWS:
            return self._leave(self._activate(entered))
        return self._leave(torch.cat([self._activate(part) for part in entered.split(strip)]))

    def _enter(self, rows: torch.Tensor) -> torch.Tensor:
        entered = F.linear(rows, self._up)
        # Apart from the product, as transformers adds it: one operation for both rounds once
        # instead of twice.
        return entered if self._up_bias is None else entered.add_(self._up_bias)

    def _leave(self, activated: torch.Tensor) -> torch.Tensor:
        left = F.linear(activated, self._down)
        if self._down_bias is not None:
            left.add_(self._down_bias)
        return left if self._norm is None else self._norm(left)


def _as_linear(weight: torch.Tensor, is_transposed: bool) -> torch.Tensor:
    return weight.t() if is_transposed else weight
