"""Runs the experts of one layer on a CPU, for training.

Each expert's rows are padded to a multiple of a fixed number. A matrix product of a shape seen
before is several times faster than a new one, for which oneDNN first generates code.
"""

from typing import cast

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "padded"
ROWS = 32


def padded_experts(
    experts: nn.Module, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """hidden [tokens, width]; chosen and shares [tokens, experts per token]."""
    gate_up_proj, down_proj = (
        cast(torch.Tensor, experts.gate_up_proj),
        cast(torch.Tensor, experts.down_proj),
    )
    num_experts, per_token = len(gate_up_proj), chosen.shape[1]
    slots, sizes = _padded_slots(chosen.reshape(-1), num_experts)
    is_real = slots >= 0
    slots = slots.clamp_min(0)
    tokens = slots // per_token
    weights = (shares.reshape(-1)[slots] * is_real)[:, None].to(hidden.dtype)
    results = [
        _expert(rows, gate_up, down)
        for rows, gate_up, down in zip(
            hidden[tokens].split(sizes),
            gate_up_proj.unbind(0),
            down_proj.unbind(0),
            strict=True,
        )
    ]
    return torch.zeros_like(hidden).index_add(0, tokens, torch.cat(results) * weights)


def _expert(rows: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    gate, up = (rows @ gate_up.T).chunk(2, dim=-1)
    return (nn.functional.silu(gate) * up) @ down.T


def _padded_slots(chosen: torch.Tensor, num_experts: int) -> tuple[torch.Tensor, list[int]]:
    """The slots sorted by expert, each expert's run filled up with -1, and the lengths
    of the runs.
    """
    order = chosen.argsort(stable=True)
    counts = torch.bincount(chosen, minlength=num_experts)
    sizes = (counts + ROWS - 1) // ROWS * ROWS
    shifts = (sizes - counts).cumsum(0) - (sizes - counts)  # padding before each expert's run
    slots = torch.full((int(sizes.sum()),), -1)
    slots[torch.arange(len(order)) + shifts[chosen[order]]] = order
    return slots, sizes.tolist()


ALL_EXPERTS_FUNCTIONS.register(NAME, padded_experts)
