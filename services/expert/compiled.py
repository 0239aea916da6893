"""Experts by the compiled kernel: a gated SiLU and nothing else, which most families'
experts are.
"""

from typing import Any

import torch

from services import kernels
from services.expert.bank import Bank
from services.model.transformers_internals import is_gated_silu


def experts_of(bank: Bank) -> kernels.GatedExperts | None:
    """The bank's experts, to be called as GroupedExperts are, which round otherwise.

    None where there is no kernel for their kind, type or device.
    """
    experts: Any = bank.pool
    if not kernels.AVAILABLE or bank.device.type != "cpu" or not _is_plain(experts):
        return None
    return kernels.GatedExperts(experts.gate_up_proj.detach(), experts.down_proj.detach())


def _is_plain(experts: Any) -> bool:
    if {name for name, _ in experts.named_parameters()} != {"gate_up_proj", "down_proj"}:
        return False
    return (
        experts.gate_up_proj.dtype in (torch.float32, torch.bfloat16)
        and not experts.is_transposed
        and experts.is_concatenated
        and not experts.has_post_expert_norm
        and is_gated_silu(experts)
    )
