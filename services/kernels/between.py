"""All that lies between the experts of two layers, in one call."""

from typing import NamedTuple

import torch

from services.kernels.attention_layer import AttentionLayer, CachedLayer, CachedRows
from services.kernels.gate import Gate
from services.kernels.level import DTYPES, _native


class Norm(NamedTuple):
    """A root mean square normalisation: weight [hidden], and what is added to the mean square."""

    weight: torch.Tensor
    epsilon: float


class Chosen(NamedTuple):
    """What the next experts need: `normed` [rows, hidden], weights and indices [rows, chosen].

    `gate_nanos` is how long the gate took. Without a gate nothing is chosen.
    """

    normed: torch.Tensor
    weights: torch.Tensor
    indices: torch.Tensor
    gate_nanos: int


class Between:
    """Does what two additions, two times `rms_norm`, `attention` and `gate` do, in the same bits.

    What the experts before gave is added to the hidden states; these are normalised by `before` for
    attention, whose result is added; and by `after` for the gate. Raises ValueError for parts that
    do not fit together, and what `AttentionLayer` raises.
    """

    def __init__(
        self, before: Norm, attention: AttentionLayer, after: Norm, gate: Gate | None
    ) -> None:
        _check(before, attention, after, gate)
        self._kept = before, attention, after, gate  # the addresses below are theirs
        self._attention = attention
        choice = gate.choice if gate else None
        self._num_chosen = choice.num_chosen if choice else 0
        self._weights_dtype = choice.weights_dtype if choice else attention.dtype
        self._described = _native.describe_between(
            attention=attention.described,
            before=before.weight.data_ptr(),
            before_epsilon=before.epsilon,
            after=after.weight.data_ptr(),
            after_epsilon=after.epsilon,
            gate=gate.weight.data_ptr() if gate else 0,
            gate_bias=gate.bias.data_ptr() if gate and gate.bias is not None else 0,
            num_experts=len(gate.weight) if gate else 0,
            num_chosen=self._num_chosen,
            softmax_first=choice is not None and choice.softmax_first,
            renormalise=choice is not None and choice.renormalise,
            weights_dtype=DTYPES[self._weights_dtype],
        )

    def __call__(
        self,
        hidden: torch.Tensor,
        arrived: torch.Tensor | None,
        rows: CachedRows,
        cached: CachedLayer,
    ) -> Chosen:
        """`hidden` [rows, hidden] is changed in place; `arrived` is as large, or None for nothing
        to add.
        """
        self._attention.check(hidden, rows, cached)
        if arrived is not None:
            self._attention.check(arrived, rows, cached)
        normed = torch.empty_like(hidden)
        weights = torch.empty(len(hidden), self._num_chosen, dtype=self._weights_dtype)
        indices = torch.empty(len(hidden), self._num_chosen, dtype=torch.int64)
        gate_nanos = _native.between(
            layer=self._described,
            rows=rows.described,
            cache=cached.described,
            hidden=hidden.data_ptr(),
            arrived=0 if arrived is None else arrived.data_ptr(),
            normed=normed.data_ptr(),
            weights=weights.data_ptr(),
            indices=indices.data_ptr(),
        )
        return Chosen(normed, weights, indices, gate_nanos)


def _check(before: Norm, attention: AttentionLayer, after: Norm, gate: Gate | None) -> None:
    for weight in (before.weight, after.weight):
        if (
            weight.shape != (attention.hidden,)
            or weight.dtype is not attention.dtype
            or not (weight.is_cpu and weight.is_contiguous())
        ):
            raise ValueError(
                f"a normalisation {tuple(weight.shape)} of {weight.dtype} does not fit attention "
                f"of {attention.hidden} {attention.dtype}, or has gaps"
            )
    if gate is not None and (
        gate.weight.shape[1] != attention.hidden or gate.weight.dtype is not attention.dtype
    ):
        raise ValueError(
            f"a gate {tuple(gate.weight.shape)} of {gate.weight.dtype} does not fit attention of "
            f"{attention.hidden} {attention.dtype}"
        )
