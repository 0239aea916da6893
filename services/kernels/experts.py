"""All active experts of one layer in one call."""

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from services.kernels.level import DTYPES, _native


class Activation(IntEnum):
    """What is applied to a number, with one rounding; but SCALED_SIGMOID, x * sigmoid(scale * x),
    rounds after each of its three operations. The numbers are kernels.h's.
    """

    SILU = 0
    GELU = 1
    GELU_TANH = 2
    RELU = 3
    RELU_SQUARED = 4
    SCALED_SIGMOID = 5


class ExpertKind(NamedTuple):
    """What experts compute between their two products: activation(gate) * (up + offset).

    Before that the gate is limited from above, and up on both sides. Without a gate it is
    activation(up). Gate and up are two halves, or take turns where they are interleaved.
    """

    activation: Activation = Activation.SILU
    is_gated: bool = True
    is_interleaved: bool = False
    limit: float = math.inf
    scale: float = 1.0
    offset: float = 0.0


Biases = tuple[torch.Tensor, torch.Tensor]
Shifts = npt.NDArray[np.int64]


class GatedExperts:
    """The pairs' results, [pairs, hidden] in their order, of experts of one kind: for each pair of
    a row and its expert's slot down(gated(gate_up(row))).

    `gate_up` [slots, 2 * intermediate, hidden], without a gate [slots, intermediate, hidden], and
    `down` [slots, hidden, intermediate] stay where they are; transposed ones have their last two
    dimensions swapped. `biases` are [slots, 2 * intermediate] and [slots, hidden]. Slots may be
    apart, the weights of one may not, and may be other ones at the next call. `shifts`,
    [slots, 2], say by how many bytes a slot's gate_up and down stand behind their places.

    Rounds where transformers' `grouped_mm` experts do. A pair's bits depend on its row, its expert
    and the level alone. Raises ValueError for tensors of another kind.
    """

    def __init__(
        self,
        gate_up: torch.Tensor,
        down: torch.Tensor,
        kind: ExpertKind = ExpertKind(),  # noqa: B008 -- it is frozen
        *,
        biases: Biases | None = None,
        shifts: Shifts | None = None,
        is_transposed: bool = False,
    ) -> None:
        self._kept = gate_up, down, biases, shifts  # the addresses that are described are theirs
        self.num_slots, self.hidden, intermediate = _sizes(gate_up, down, is_transposed)
        self.dtype = gate_up.dtype
        entered = intermediate * (2 if kind.is_gated else 1)
        _check(gate_up, (self.hidden, entered) if is_transposed else (entered, self.hidden), self)
        _check(down, down.shape[1:], self)
        if biases is not None:
            _check(biases[0], (entered,), self)
            _check(biases[1], (self.hidden,), self)
        if shifts is not None and not (
            shifts.shape == (self.num_slots, 2) and shifts.dtype == np.int64
        ):
            raise ValueError(f"{shifts.shape} of {shifts.dtype} are no shifts of the slots")
        # As torch limits numbers of this dtype.
        kind = kind._replace(limit=float(torch.tensor(kind.limit, dtype=self.dtype)))
        self.kind = kind
        into_bias, down_bias = biases or (None, None)
        self.described = _native.describe_experts(
            gate_up=gate_up.data_ptr(),
            gate_up_stride=gate_up.stride(0),
            gate_up_bias=0 if into_bias is None else into_bias.data_ptr(),
            gate_up_bias_stride=0 if into_bias is None else into_bias.stride(0),
            down=down.data_ptr(),
            down_stride=down.stride(0),
            down_bias=0 if down_bias is None else down_bias.data_ptr(),
            down_bias_stride=0 if down_bias is None else down_bias.stride(0),
            shifts=0 if shifts is None else shifts.ctypes.data,
            num_slots=self.num_slots,
            hidden=self.hidden,
            intermediate=intermediate,
            is_transposed=is_transposed,
            kind=kind,
            dtype=DTYPES[self.dtype],
        )

    def __call__(
        self, rows: torch.Tensor, pair_rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        """Take `rows` [rows, hidden], at any address, by `pair_rows` [pairs] through the experts in
        `slots` [pairs].

        Raises IndexError for a row or slot that is not there.
        """
        num_rows, width = rows.shape
        row_stride, step = rows.stride()
        if width != self.hidden or rows.dtype is not self.dtype or step != 1 or not rows.is_cpu:
            raise ValueError(
                f"rows {tuple(rows.shape)} of {rows.dtype} do not fit experts for {self.hidden} "
                "numbers"
            )
        num_pairs = len(pair_rows)
        out = rows.new_empty(num_pairs, width)
        _native.gated_experts(
            experts=self.described,
            pair_rows=pair_rows,
            slots=slots,
            num_pairs=num_pairs,
            rows=rows.data_ptr(),
            num_rows=num_rows,
            row_stride=row_stride,
            out=out.data_ptr(),
        )
        return out


def _sizes(gate_up: torch.Tensor, down: torch.Tensor, is_transposed: bool) -> tuple[int, int, int]:
    """Slots, hidden and intermediate width, as `down` says. Raises ValueError for dtypes."""
    if gate_up.dtype not in DTYPES or down.dtype is not gate_up.dtype:
        raise ValueError(f"gate_up of {gate_up.dtype} and down of {down.dtype} do not fit")
    num_slots, first, second = down.shape
    return (num_slots, second, first) if is_transposed else (num_slots, first, second)


def _check(weights: torch.Tensor, shape: tuple[int, ...], experts: "GatedExperts") -> None:
    num_slots, dtype = experts.num_slots, experts.dtype
    if tuple(weights.shape) != (num_slots, *shape) or weights.dtype is not dtype:
        raise ValueError(
            f"{tuple(weights.shape)} of {weights.dtype} does not fit, where "
            f"{(num_slots, *shape)} of {dtype} is needed"
        )
    if not weights.is_cpu:
        raise ValueError("weights must be on the CPU")
    if not weights[0].is_contiguous():
        raise ValueError("the weights of one slot must be without gaps")
