"""Draws from the probabilities of many rows in one call."""

from collections.abc import Sequence

import torch

from services.kernels.level import _native

# What the module says where rounding could decide.
_UNCERTAIN = -1


def draw(
    probabilities: torch.Tensor, choices: Sequence[tuple[float, float, float, float]]
) -> list[int | None]:
    """A token of each row of `probabilities` [rows, vocabulary] in float64, finite and on the CPU.

    A row's choice is top-k (0 for all tokens), top-p, min-p, and the point in [0, 1) of the draw.
    The draw is that from the whole row in order, the likeliest first and of equals the lower token:
    the first at which the sum of those that are kept is above the point's share of it. None where a
    sum's rounding could decide. Raises ValueError for another kind of tensor.
    """
    num_rows, width = probabilities.shape
    if (
        probabilities.dtype is not torch.float64
        or not probabilities.is_cpu
        or not probabilities.is_contiguous()
        or len(choices) != num_rows
        or width < 1
    ):
        raise ValueError(
            f"probabilities {tuple(probabilities.shape)} of {probabilities.dtype} and "
            f"{len(choices)} choices do not fit, or there are gaps"
        )
    numbers = torch.tensor(choices, dtype=torch.float64)
    tokens = torch.empty(num_rows, dtype=torch.int64)
    _native.draw(
        probabilities=probabilities.data_ptr(),
        num_rows=num_rows,
        width=width,
        choices=numbers.data_ptr(),
        tokens=tokens.data_ptr(),
    )
    return [None if token == _UNCERTAIN else token for token in tokens.tolist()]
