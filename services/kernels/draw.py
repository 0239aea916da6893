"""Draws from the logits of many rows in one call."""

from collections.abc import Sequence

import torch

from services.kernels.level import _native

# What the module says where rounding could decide.
_UNCERTAIN = -1
# What a row's draw depends on besides its logits: temperature, top-k, top-p, min-p, and the point.
Choice = tuple[float, float, float, float, float]


def draw(rows: Sequence[torch.Tensor], choices: Sequence[Choice]) -> list[int | None]:
    """A token of each of `rows` [vocabulary] in float32 on the CPU: finite numbers, or -inf for
    what is not to be drawn, and not for all.

    A row's choice is the temperature (0 for its likeliest token), top-k (0 for all tokens), top-p,
    min-p, and the point in [0, 1) of the draw. The draw is that from the whole row in order, the
    likeliest first and of equals the lower token: the first at which the sum of those that are kept
    is above the point's share of it. None where a sum's rounding could decide, or where that is
    not found without the whole row in order. Raises ValueError for another kind of tensor.
    """
    width = rows[0].shape[0] if rows else 1
    if len(choices) != len(rows) or not all(_fits(row, width) for row in rows):
        raise ValueError(
            f"rows {[tuple(row.shape) for row in rows[:3]]} and {len(choices)} choices do not fit, "
            "or there are gaps"
        )
    addresses = torch.tensor([row.data_ptr() for row in rows], dtype=torch.int64)
    numbers = torch.tensor(choices, dtype=torch.float64)
    tokens = torch.empty(len(rows), dtype=torch.int64)
    _native.draw(
        rows=addresses.data_ptr(),
        num_rows=len(rows),
        width=width,
        choices=numbers.data_ptr(),
        tokens=tokens.data_ptr(),
    )
    return [None if token == _UNCERTAIN else token for token in tokens.tolist()]


def _fits(row: torch.Tensor, width: int) -> bool:
    return (
        row.dtype is torch.float32
        and row.is_cpu
        and row.is_contiguous()
        and row.shape == (width,)
        and 1 <= width <= 1 << 30
    )
