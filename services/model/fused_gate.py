"""Gates of the common forms as one call of our kernels, where a trial shows that they are of such a
form.

The form is a linear layer, the choice of the highest and a softmax, before or after the choice:
Mixtral's, Qwen's, gpt-oss's and others'.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from services import kernels
from services.model.kernel_layers import called_directly

TRIAL_ROWS = 64
# Inputs of these sizes show limits on values, and biases.
TRIAL_SCALES = (0.01, 1.0, 100.0)
# Weights may differ by a rounding.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}

Routed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@called_directly
class FusedGate(torch.nn.Module):
    """Does what `inner` does: rows [n, width] to logits [n, experts], weights and indices [n,
    chosen].

    `begin` is called before. With `always` every number of rows goes through the kernel, so that a
    row's bits depend on the row alone; else only as many as it is the faster for.
    """

    def __init__(
        self,
        inner: torch.nn.Module,
        choice: kernels.Choice,
        begin: Callable[[], None],
        *,
        always: bool,
    ) -> None:
        super().__init__()
        self.inner = inner
        weight, bias = _weights(inner)
        self._width = weight.shape[1]
        self.kernel = kernels.Gate(weight, bias, choice)
        self._most_rows = None if always else kernels.most_layer_rows(weight)
        self._begin = begin

    def forward(self, rows: torch.Tensor) -> Routed:
        self._begin()
        if rows.dim() != 2:
            rows = rows.reshape(-1, self._width)
        if self._most_rows is not None and len(rows) > self._most_rows:
            return self.inner(rows)  # type: ignore[no-any-return]
        return self.kernel(rows)


def fused_gate(
    inner: torch.nn.Module, dtype: torch.dtype, begin: Callable[[], None], *, always: bool
) -> FusedGate | None:
    """The replacement of a gate for rows of `dtype`, or None where the gate is of another form."""
    weight, _ = _weights(inner)
    if (
        weight is None
        or weight.dim() != 2
        or not kernels.linear_pays(1, weight)
        or weight.dtype is not dtype
    ):
        return None
    chooses_alike = (choice for choice in _choices(inner, weight) if _is_of_form(inner, choice))
    choice = next(chooses_alike, None)
    if choice is None:
        return None
    try:
        fused = FusedGate(inner, choice, begin, always=True)
    except ValueError:  # so many of so many are not served
        return None
    if not _agrees(inner, fused, weight):
        return None
    return FusedGate(inner, choice, begin, always=always)


def _weights(inner: torch.nn.Module) -> tuple[Any, torch.Tensor | None]:
    own = dict(inner.named_parameters())
    return (
        (own["weight"], own.get("bias"))
        if own.keys() in ({"weight"}, {"weight", "bias"})
        else (None, None)
    )


def _choices(inner: torch.nn.Module, weight: torch.Tensor) -> Iterator[kernels.Choice]:
    """The choices that give results of the same shapes and dtypes; none for another kind of
    results.
    """
    try:
        results = inner(torch.zeros(1, weight.shape[1], dtype=weight.dtype))
    except (TypeError, ValueError, RuntimeError, ArithmeticError):
        # It wants more than rows, or its settings do not fit, as a probing forward will tell.
        return
    if not isinstance(results, tuple) or [type(result) for result in results] != [torch.Tensor] * 3:
        return
    logits, weights, indices = results
    if (
        logits.dtype is not weight.dtype
        or indices.dtype is not torch.int64
        or weights.shape != indices.shape
    ):
        return
    for softmax_first, renormalise in ((True, True), (True, False), (False, False)):
        yield kernels.Choice(indices.shape[-1], softmax_first, renormalise, weights.dtype)


def _is_of_form(inner: torch.nn.Module, choice: kernels.Choice) -> bool:
    weight, bias = _weights(inner)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(TRIAL_ROWS, weight.shape[1], generator=generator)
    for scale in TRIAL_SCALES:
        scaled = (rows * scale).to(weight.dtype)
        pairs = zip(inner(scaled), _by_torch(scaled, weight, bias, choice), strict=True)
        if not all(torch.equal(result, expected) for result, expected in pairs):
            return False
    return True


def _by_torch(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, choice: kernels.Choice
) -> Routed:
    logits = F.linear(rows, weight, bias)
    weights, indices = chosen_by_torch(logits, choice)
    return logits, weights.to(choice.weights_dtype), indices


def chosen_by_torch(
    logits: torch.Tensor, choice: kernels.Choice
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights, still in float32, and indices, both [n, chosen], of logits [n, experts]: what a
    choice means.
    """
    if choice.softmax_first:
        weights, indices = logits.softmax(-1, dtype=torch.float32).topk(choice.num_chosen)
    else:
        values, indices = logits.topk(choice.num_chosen)
        weights = values.softmax(-1, dtype=torch.float32)
    if choice.renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights, indices


def _agrees(inner: torch.nn.Module, fused: FusedGate, weight: torch.Tensor) -> bool:
    """Whether the kernel chooses as torch does where logits are the same in both, having one
    summand but for a bias.
    """
    rows = torch.eye(weight.shape[1], dtype=weight.dtype)[:TRIAL_ROWS]
    (_, expected, chosen), (_, weights, indices) = inner(rows), fused(rows)
    tolerance = TOLERANCE[weights.dtype]
    return torch.equal(indices, chosen) and torch.allclose(
        weights, expected, atol=tolerance, rtol=tolerance
    )
