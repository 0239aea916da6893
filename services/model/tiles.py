"""Row-wise modules in tiles of a fixed number of rows: a row's bits do not depend on the rows
beside it.

A matrix product picks its kernel, and with it the rounding, by the number of rows. With the number
fixed, and the width of a tile a multiple of every vector register, what is left is the place within
the tile, which the tests show to be without effect.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from services.model.kernel_layers import KernelLinear

TILE_ROWS = 16
# Element-wise kernels take this many elements at once and round what is left over by other code.
WHOLE_ELEMENTS = 64


def tile_rows(width: int) -> int:
    """Rows of a tile of this width: 16, or as many more as make its elements whole."""
    return max(TILE_ROWS, WHOLE_ELEMENTS // math.gcd(WHOLE_ELEMENTS, width))


def padded_to_tiles(num_rows: int, rows_per_tile: int = TILE_ROWS) -> int:
    """The next multiple of the tile."""
    return -(-num_rows // rows_per_tile) * rows_per_tile


def pad_rows(rows: torch.Tensor, rows_per_tile: int = TILE_ROWS) -> torch.Tensor:
    """`rows` [n, ...] with zero rows added up to a multiple of the tile."""
    missing = padded_to_tiles(len(rows), rows_per_tile) - len(rows)
    return F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) if missing else rows


class Tiled(torch.nn.Module):
    """Runs a row-wise module (a linear layer, a gate) whose output is `width` wide on one tile of
    rows at a time.

    Takes [..., input width]; a tensor comes back with the leading dimensions as they were, a tuple
    of tensors with rows flattened, as gates return them.
    """

    def __init__(self, inner: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.rows_per_tile = tile_rows(width)

    def forward(self, rows: torch.Tensor, *arguments: Any) -> Any:
        if not rows.numel():
            return self.inner(rows, *arguments)
        flat = rows.reshape(-1, rows.shape[-1])
        padded = pad_rows(flat, self.rows_per_tile)
        outputs = [self.inner(tile, *arguments) for tile in padded.split(self.rows_per_tile)]
        if isinstance(outputs[0], tuple):
            return tuple(torch.cat(parts)[: len(flat)] for parts in zip(*outputs, strict=True))
        return torch.cat(outputs)[: len(flat)].reshape(*rows.shape[:-1], -1)

    def __getattr__(self, name: str) -> Any:
        # Model code reads `weight`, `dtype` and the like off its layers.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def tile_linears(module: torch.nn.Module) -> None:
    """Wrap every linear layer below `module` in `Tiled`, in place."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Linear):
            setattr(module, name, Tiled(child, child.out_features))
        else:
            tile_linears(child)


def most_tile_rows(module: torch.nn.Module) -> int:
    """Rows of the largest tile below `module`; a batch of a multiple of it leaves no tile half
    empty.

    A layer of our kernels needs no tiles for itself, but what comes after it computes on rows of
    its width.
    """
    tiles = [layer.rows_per_tile for layer in module.modules() if isinstance(layer, Tiled)]
    widths = [layer.out_features for layer in module.modules() if isinstance(layer, KernelLinear)]
    return max([TILE_ROWS, *tiles, *map(tile_rows, widths)])
