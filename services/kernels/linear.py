"""The linear layer for few rows, at the speed of reading its weights."""

import torch

from services.kernels.level import DTYPES, _native


def linear(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`rows` [m, k] times the transpose of `weight` [n, k], plus `bias` [n]: [m, n].

    Summed up in float32 and rounded once. A row's bits depend on that row, the weights and the
    level alone: not on m, on its place or on addresses. Tensors are all float32 or all bfloat16, on
    the CPU, and neighbours within a row. Raises ValueError otherwise.
    """
    dtype = rows.dtype
    num_rows, width = rows.shape
    num_outputs, weight_width = weight.shape
    row_stride, row_step = rows.stride()
    weight_stride, weight_step = weight.stride()
    if dtype not in DTYPES or weight.dtype is not dtype or weight_width != width:
        raise ValueError(f"rows {_described(rows)} and weight {_described(weight)} do not fit")
    if row_step != 1 or weight_step != 1 or not (rows.is_cpu and weight.is_cpu):
        raise ValueError("rows and weight must be on the CPU, and neighbours within a row")
    if bias is not None and (
        bias.shape != (num_outputs,) or bias.dtype is not dtype or bias.stride(0) != 1
    ):
        raise ValueError(f"bias {_described(bias)} does not fit weight {_described(weight)}")
    out = rows.new_empty(num_rows, num_outputs)
    _native.linear(
        rows=rows.data_ptr(),
        num_rows=num_rows,
        row_stride=row_stride,
        weight=weight.data_ptr(),
        weight_stride=weight_stride,
        bias=0 if bias is None else bias.data_ptr(),
        out=out.data_ptr(),
        num_outputs=num_outputs,
        width=width,
        dtype=DTYPES[dtype],
    )
    return out


def _described(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype}"
