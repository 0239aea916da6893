"""Root mean square normalisation in one call."""

import torch

from services.kernels.level import DTYPES, _native


def rms_norm(rows: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """`rows` [..., width] divided by the root of their mean square, times `weight` [width]; without
    gaps.

    Rounds as Llama's and Qwen3's RMSNorm do: float32 up to the quotient, which is rounded to the
    dtype before the weight. `rows` may be apart in up to two dimensions before the last. Both are
    float32 or bfloat16 on the CPU. Raises ValueError otherwise.
    """
    dtype, width = rows.dtype, weight.numel()
    if (
        dtype not in DTYPES
        or weight.dtype is not dtype
        or rows.shape[-1] != width
        or weight.dim() != 1
    ):
        raise ValueError(
            f"rows {tuple(rows.shape)} of {dtype} and weight [{width}] of {weight.dtype} do not fit"
        )
    if not (weight.is_contiguous() and rows.is_cpu and weight.is_cpu):
        raise ValueError("rows and weight must be on the CPU, and the weight without gaps")
    if rows.is_contiguous():
        num_outer, outer_stride, num_inner, inner_stride = (
            1,
            0,
            rows.numel() // max(width, 1),
            width,
        )
    else:
        num_outer, outer_stride, num_inner, inner_stride = _two_levels(rows)
    out = rows.new_empty(rows.shape)
    _native.rms_norm(
        rows=rows.data_ptr(),
        weight=weight.data_ptr(),
        out=out.data_ptr(),
        epsilon=epsilon,
        num_outer=num_outer,
        outer_stride=outer_stride,
        num_inner=num_inner,
        inner_stride=inner_stride,
        width=width,
        dtype=DTYPES[dtype],
    )
    return out


def _two_levels(rows: torch.Tensor) -> tuple[int, int, int, int]:
    """Count and stride of the outer and inner dimension that all but the last are seen as."""
    levels = [
        (size, stride)
        for size, stride in zip(rows.shape[:-1], rows.stride(), strict=False)
        if size != 1
    ]
    if len(levels) > 2 or rows.stride(-1) != 1:
        raise ValueError(
            f"rows {tuple(rows.shape)} with strides {rows.stride()} have too many gaps"
        )
    (num_outer, outer_stride), (num_inner, inner_stride) = [(1, 0), (1, 0), *levels][-2:]
    return num_outer, outer_stride, num_inner, inner_stride
