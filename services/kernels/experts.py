"""All active experts of one layer in one call."""

import numpy as np
import numpy.typing as npt
import torch

from services.kernels.level import DTYPES, _native


class GatedExperts:
    """down(silu(gate(row)) * up(row)) of each pair of a row and its expert's slot: [pairs, hidden]
    in their order.

    `gate_up` [slots, 2 * intermediate, hidden], with the gate's weights first, and `down` [slots,
    hidden, intermediate] stay where they are; slots may be apart, the weights of one may not, and
    may be other ones at the next call. Rounds where transformers' `grouped_mm` experts do. A pair's
    bits depend on its row, its expert and the level alone. Raises ValueError for tensors of another
    kind.
    """

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        num_slots, entered, hidden = gate_up.shape
        intermediate = entered // 2
        if gate_up.dtype not in DTYPES or down.dtype is not gate_up.dtype:
            raise ValueError(f"gate_up of {gate_up.dtype} and down of {down.dtype} do not fit")
        if entered % 2 or down.shape != (num_slots, hidden, intermediate):
            raise ValueError(
                f"gate_up {tuple(gate_up.shape)} and down {tuple(down.shape)} do not fit"
            )
        if gate_up.stride()[1:] != (hidden, 1) or down.stride()[1:] != (intermediate, 1):
            raise ValueError("the weights of one slot must be without gaps")
        if not (gate_up.is_cpu and down.is_cpu):
            raise ValueError("weights must be on the CPU")
        self.weights = gate_up, down  # the addresses below are theirs
        self._gate_up, self._gate_up_stride = gate_up.data_ptr(), gate_up.stride(0)
        self._down, self._down_stride = down.data_ptr(), down.stride(0)
        self._num_slots, self._hidden, self._intermediate = num_slots, hidden, intermediate
        self._dtype = gate_up.dtype

    def __call__(
        self, rows: torch.Tensor, pair_rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        """Take `rows` [rows, hidden], at any address, by `pair_rows` [pairs] through the experts in
        `slots` [pairs].

        Raises IndexError for a row or slot that is not there.
        """
        num_rows, width = rows.shape
        row_stride, step = rows.stride()
        if width != self._hidden or rows.dtype is not self._dtype or step != 1 or not rows.is_cpu:
            raise ValueError(
                f"rows {tuple(rows.shape)} of {rows.dtype} do not fit experts for {self._hidden} "
                "numbers"
            )
        num_pairs = len(pair_rows)
        out = rows.new_empty(num_pairs, width)
        _native.gated_experts(
            pair_rows=pair_rows,
            slots=slots,
            rows=rows.data_ptr(),
            num_rows=num_rows,
            row_stride=row_stride,
            gate_up=self._gate_up,
            gate_up_stride=self._gate_up_stride,
            down=self._down,
            down_stride=self._down_stride,
            out=out.data_ptr(),
            num_pairs=num_pairs,
            num_slots=self._num_slots,
            hidden=width,
            intermediate=self._intermediate,
            dtype=DTYPES[self._dtype],
        )
        return out
