"""Experts by the compiled kernel: a gated SiLU and nothing else, which most families' experts are."""

from typing import Any

import torch
from torch import nn
from transformers.activations import SiLUActivation
from transformers.integrations.moe import _default_apply_gate

from services import kernels
from services.expert.bank import Bank
from services.expert.grouped import Positions


class CompiledExperts:
    """The experts of a bank, computed as `GroupedExperts` does but for the rounding."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        self._gate_up = gate_up  # [slots, 2 * intermediate, hidden]
        self._down = down  # [slots, hidden, intermediate]

    def __call__(self, rows: torch.Tensor, pair_rows: Positions, slots: Positions) -> torch.Tensor:
        """The pairs' results, [pairs, hidden]; see GroupedExperts. A pair's bits depend on its row and expert alone."""
        return kernels.gated_experts(rows, pair_rows, slots, self._gate_up, self._down)


def experts_of(bank: Bank) -> CompiledExperts | None:
    """The bank's experts, or None where there is no kernel for their kind, type or device."""
    experts: Any = bank.pool
    if not kernels.AVAILABLE or bank.device.type != "cpu" or not _is_plain(experts):
        return None
    return CompiledExperts(experts.gate_up_proj.detach(), experts.down_proj.detach())


def _is_plain(experts: Any) -> bool:
    if {name for name, _ in experts.named_parameters()} != {"gate_up_proj", "down_proj"}:
        return False
    return (
        experts.gate_up_proj.dtype in (torch.float32, torch.bfloat16)
        and not experts.is_transposed
        and experts.is_concatenated
        and not experts.has_post_expert_norm
        and type(experts)._apply_gate is _default_apply_gate
        and isinstance(experts.act_fn, SiLUActivation | nn.SiLU)
    )
