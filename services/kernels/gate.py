"""A gate in one call: logits, the choice of experts, and their weights."""

from dataclasses import dataclass

import torch

from services.kernels.level import DTYPES, _native

# torch.topk chooses by other algorithms beyond these.
MOST_CHOSEN = 17
PARTIAL_SORT_FACTOR = 64


@dataclass(frozen=True)
class Choice:
    """How a gate gets from logits to `num_chosen` experts and their weights.

    With `softmax_first` they are chosen from the softmax of all logits, whose values are their
    weights, divided by their sum with `renormalise`. Otherwise they are chosen from the logits, and
    their softmax is the weights.
    """

    num_chosen: int
    softmax_first: bool
    renormalise: bool
    weights_dtype: torch.dtype


class Gate:
    """Takes rows [n, width] to logits [n, experts], weights and indices [n, chosen], the highest
    first.

    `weight` [experts, width] and `bias` [experts] stay where they are. Logits are those of
    `linear`, all after is float32, and among equals the choice is that of torch.topk on the CPU. A
    row's bits depend on it, the weights and the level alone. Raises ValueError for tensors of
    another kind, or a choice that torch makes by another algorithm.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, choice: Choice) -> None:
        num_experts, width = weight.shape
        if not 0 < choice.num_chosen <= min(MOST_CHOSEN, num_experts):
            raise ValueError(f"{choice.num_chosen} experts of {num_experts} are not to be chosen")
        if choice.num_chosen * PARTIAL_SORT_FACTOR <= num_experts:
            raise ValueError(
                f"{choice.num_chosen} experts of {num_experts} are chosen by partial sorting"
            )
        if weight.dtype not in DTYPES or choice.weights_dtype not in DTYPES:
            raise ValueError(
                f"weight of {weight.dtype} and results of {choice.weights_dtype} are not served"
            )
        if not (weight.is_cpu and weight.is_contiguous()):
            raise ValueError("the weight must be on the CPU and without gaps")
        if bias is not None and (
            bias.shape != (num_experts,) or bias.dtype is not weight.dtype or bias.stride(0) != 1
        ):
            raise ValueError(
                f"bias {tuple(bias.shape)} of {bias.dtype} does not fit {num_experts} experts"
            )
        self.weight, self.bias = weight, bias  # the addresses below are theirs
        self._weight, self._bias = weight.data_ptr(), 0 if bias is None else bias.data_ptr()
        self._num_experts, self._width, self._dtype = num_experts, width, weight.dtype
        self.choice = choice

    def __call__(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        num_rows, width = rows.shape
        row_stride, step = rows.stride()
        if width != self._width or rows.dtype is not self._dtype or step != 1 or not rows.is_cpu:
            raise ValueError(
                f"rows {tuple(rows.shape)} of {rows.dtype} do not fit a gate for {self._width} "
                "numbers"
            )
        choice = self.choice
        logits = rows.new_empty(num_rows, self._num_experts)
        weights = torch.empty(num_rows, choice.num_chosen, dtype=choice.weights_dtype)
        indices = torch.empty(num_rows, choice.num_chosen, dtype=torch.int64)
        _native.gate(
            rows=rows.data_ptr(),
            num_rows=num_rows,
            row_stride=row_stride,
            logits=logits.data_ptr(),
            weights=weights.data_ptr(),
            indices=indices.data_ptr(),
            weight=self._weight,
            bias=self._bias,
            num_experts=self._num_experts,
            width=width,
            num_chosen=choice.num_chosen,
            softmax_first=choice.softmax_first,
            renormalise=choice.renormalise,
            weights_dtype=DTYPES[choice.weights_dtype],
            dtype=DTYPES[self._dtype],
        )
        return logits, weights, indices
