"""All active experts of one layer in one call."""

import numpy as np
import numpy.typing as npt
import torch

from services.kernels.level import DTYPES, _native


def gated_experts(
    rows: torch.Tensor,
    pair_rows: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int64],
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """down(silu(gate(row)) * up(row)) of each pair of a row and its expert's slot: [pairs, hidden] in their order.

    `rows` [rows, hidden] at any address; `pair_rows` and `slots` [pairs]; `gate_up` [slots, 2 * intermediate, hidden]
    with the gate's weights first; `down` [slots, hidden, intermediate]. Slots may be apart, the weights of one may not.
    Rounds where transformers' `grouped_mm` experts do. A pair's bits depend on its row, its expert and the level alone.
    Raises ValueError for tensors of another kind, IndexError for a row or slot that is not there.
    """
    num_rows, width = rows.shape
    row_stride, row_step = rows.stride()
    num_slots, entered, hidden = gate_up.shape
    intermediate = entered // 2
    gate_up_stride, *gate_up_steps = gate_up.stride()
    down_stride, *down_steps = down.stride()
    dtype, num_pairs = rows.dtype, len(pair_rows)
    if dtype not in DTYPES or gate_up.dtype is not dtype or down.dtype is not dtype:
        raise ValueError(f"rows of {dtype}, gate_up of {gate_up.dtype} and down of {down.dtype} do not fit")
    if width != hidden or entered % 2 or down.shape != (num_slots, hidden, intermediate):
        raise ValueError(f"{tuple(rows.shape)}, {tuple(gate_up.shape)} and {tuple(down.shape)} do not fit")
    if row_step != 1 or gate_up_steps != [hidden, 1] or down_steps != [intermediate, 1]:
        raise ValueError("numbers within a row, and the weights of one slot, must be without gaps")
    if not (rows.is_cpu and gate_up.is_cpu and down.is_cpu):
        raise ValueError("rows and weights must be on the CPU")
    out = rows.new_empty(num_pairs, hidden)
    _native.gated_experts(
        pair_rows,
        slots,
        rows.data_ptr(),
        num_rows,
        row_stride,
        gate_up.data_ptr(),
        gate_up_stride,
        down.data_ptr(),
        down_stride,
        out.data_ptr(),
        num_pairs,
        num_slots,
        hidden,
        intermediate,
        DTYPES[dtype],
    )
    return out
