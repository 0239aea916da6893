"""Experts in memory: the family's own `*Experts` module, cut down to the experts that
are wanted.
"""

import copy
from typing import Any, Literal, cast

import torch
from torch import nn

from services.model.checkpoint import Checkpoint, ExpertWeights
from services.model.transformers_internals import compute_experts_by

ExpertsImplementation = Literal["grouped_mm", "eager"]


def empty_experts(
    checkpoint: Checkpoint,
    layer: int,
    num_experts: int,
    dtype: torch.dtype,
    device: torch.device,
    implementation: ExpertsImplementation = "grouped_mm",
) -> nn.Module:
    """A module for `num_experts` experts of `layer`, allocated once and not yet filled;
    `fill_expert` fills it.

    Called as `module(hidden, slots, ones)` with hidden states [rows, hidden_size], each row's slot
    in this module (not its number in the model) [rows, 1] and ones [rows, 1], it returns the
    experts' outputs [rows, hidden_size]. Raises NotFound for a layer without experts.
    """
    module: Any = copy.deepcopy(checkpoint.experts_module(layer))
    for name, parameter in list(module.named_parameters()):
        shape = (num_experts, *parameter.shape[1:])
        setattr(
            module,
            name,
            nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad=False),
        )
    module.num_experts = num_experts
    compute_experts_by(module.config, implementation)
    module.to_empty(device=device)
    module.train(False)
    return cast(nn.Module, module)


@torch.no_grad()
def fill_expert(module: nn.Module, slot: int, weights: ExpertWeights) -> None:
    """Copy one expert's weights, as `Checkpoint.read_expert` gives them, into `slot` of a module of
    `empty_experts`.
    """
    parameters = dict(module.named_parameters())
    for name, weight in weights.items():
        parameters[name][slot].copy_(weight)
