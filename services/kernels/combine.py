"""The weighted sums of a layer's rows, straight from the replies that they came in."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from services.kernels.level import DTYPES, _native

# Up to so many terms torch adds one after the other in any width; more of them, in whole blocks of
# columns only.
_TERMS_IN_ORDER = 4
_MOST_TERMS = 16
_BLOCK_WIDTH = 32


def combines(dtype: torch.dtype, weights: torch.Tensor, width: int, out_dtype: torch.dtype) -> bool:
    """Whether `combine` takes rows of so many numbers of `dtype` with such weights [tokens, k], and
    adds as torch.
    """
    top_k = weights.shape[1]
    return (
        dtype in DTYPES
        and weights.dtype in DTYPES
        and out_dtype in DTYPES
        and weights.is_cpu
        and width >= 1
        and 1 <= top_k <= (_TERMS_IN_ORDER if width % _BLOCK_WIDTH else _MOST_TERMS)
    )


def combine(
    replies: Sequence[tuple[memoryview, npt.NDArray[np.int64]]],
    weights: torch.Tensor,
    width: int,
    dtype: torch.dtype,
    out_dtype: torch.dtype,
) -> tuple[torch.Tensor, bool]:
    """The sum of each token's rows times their weights, [tokens, width] of `out_dtype`, and whether
    all sums are finite.

    `replies` are bytes of rows [pairs, width] of `dtype`, at any address, and their positions among
    the flat pairs of `weights` [tokens, k]. A pair without a row counts as one of zeros. Adds in
    the order of slots and rounds as torch, so that all bits are those of `(rows.view(tokens, k,
    width) * weights[..., None]).sum(1).to(out_dtype)`. Raises ValueError for what `combines`
    refuses and for rows and positions that do not fit, IndexError for a position that is not there.
    """
    num_tokens, top_k = weights.shape
    if not combines(dtype, weights, width, out_dtype):
        raise ValueError(
            f"rows [{width}] of {dtype}, weights {tuple(weights.shape)} and {out_dtype} do not fit"
        )
    weights = weights.contiguous()
    out = weights.new_empty(num_tokens, width, dtype=out_dtype)
    are_finite = _native.combine(
        replies=[reply for reply, _ in replies],
        positions=[positions for _, positions in replies],
        weights=weights.data_ptr(),
        out=out.data_ptr(),
        num_tokens=num_tokens,
        top_k=top_k,
        width=width,
        dtype=DTYPES[dtype],
        weights_dtype=DTYPES[weights.dtype],
        out_dtype=DTYPES[out_dtype],
    )
    return out, are_finite
