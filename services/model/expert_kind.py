"""Of which kind a family's experts are, for the kernel: a trial finds it, so that no family is
named.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from services import kernels
from services.kernels import Activation, ExpertKind
from services.kernels.level import DTYPES
from services.model.transformers_internals import gate_of

TRIAL_ROWS, TRIAL_WIDTH = 32, 64
# Numbers of these sizes show what is limited, and where an activation is nearly linear.
TRIAL_SCALES = (0.01, 1.0, 10.0, 1e6)
# Quick GELU's. Other scales and all limits are numbers that the experts' module holds.
QUICK_GELU_SCALE = 1.702


def expert_kind(experts: nn.Module, dtype: torch.dtype) -> ExpertKind | None:
    """The kind of an `*Experts` module, which may be on the meta device, when it computes in
    `dtype`: what the kernel computes rounds where the module does.

    None where there is no kernel for it.
    """
    module: Any = experts
    if not kernels.AVAILABLE or dtype not in DTYPES or not _has_two_products(module):
        return None
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(TRIAL_ROWS, TRIAL_WIDTH, generator=generator)
    try:
        between = gate_of(module) if module.has_gate else module.act_fn
        trials = [((numbers * scale).to(dtype)) for scale in TRIAL_SCALES]
        expected = [between(entered) for entered in trials]
    except (TypeError, ValueError, RuntimeError):  # it wants more than the first product's results
        return None
    for kind in _candidates(module):
        if all(map(torch.equal, (between_by_torch(kind, each) for each in trials), expected)):
            return kind
    return None


def who_computes(kind: ExpertKind | None) -> str:
    """What computes experts of a kind: the kernel, by its activation, or torch."""
    return "by torch" if kind is None else kind.activation.name.lower()


def between_by_torch(kind: ExpertKind, entered: torch.Tensor) -> torch.Tensor:
    """What a kind means: the results of experts' first product, [rows, ..], to what their second
    one takes.
    """
    if not kind.is_gated:
        return _activate(kind, entered)
    halves = (
        (entered[..., ::2], entered[..., 1::2]) if kind.is_interleaved else entered.chunk(2, -1)
    )
    gate, up = halves
    if kind.limit < math.inf:
        gate, up = gate.clamp(max=kind.limit), up.clamp(min=-kind.limit, max=kind.limit)
    return _activate(kind, gate) * (up + kind.offset if kind.offset else up)


def _activate(kind: ExpertKind, numbers: torch.Tensor) -> torch.Tensor:
    match kind.activation:
        case Activation.SILU:
            return F.silu(numbers)
        case Activation.GELU:
            return F.gelu(numbers)
        case Activation.GELU_TANH:
            return F.gelu(numbers, approximate="tanh")
        case Activation.RELU:
            return F.relu(numbers)
        case Activation.RELU_SQUARED:
            return F.relu(numbers).square()
        case Activation.SCALED_SIGMOID:
            return numbers * torch.sigmoid(numbers * kind.scale)


def _has_two_products(module: Any) -> bool:
    into = "gate_up_proj" if module.has_gate else "up_proj"
    names = {into, "down_proj"}
    if module.has_bias:
        names |= {f"{name}_bias" for name in names}
    return (
        not module.has_post_expert_norm and {name for name, _ in module.named_parameters()} == names
    )


def _candidates(module: Any) -> Iterator[ExpertKind]:
    """The most common first; of those that are limited, the limits are the module's own."""
    is_interleaved = module.has_gate and not module.is_concatenated
    held = {value for value in vars(module).values() if isinstance(value, float)}
    for limit in (math.inf, *sorted(held)) if module.has_gate else (math.inf,):
        for activation in Activation:
            scales = (1.0, QUICK_GELU_SCALE, *sorted(held))
            for scale in scales if activation is Activation.SCALED_SIGMOID else scales[:1]:
                for offset in (0.0, 1.0) if module.has_gate else (0.0,):
                    yield ExpertKind(
                        activation, module.has_gate, is_interleaved, limit, scale, offset
                    )
