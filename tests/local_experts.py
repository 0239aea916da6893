"""Experts of a checkpoint split over several modules of one process: what the cluster does, without
the cluster.
"""

from collections.abc import Sequence

import torch
from torch import nn

from services.model.checkpoint import Checkpoint
from services.model.expert_weights import ExpertsImplementation, empty_experts, fill_expert


def build_experts(
    checkpoint: Checkpoint,
    layer: int,
    experts: Sequence[int],
    dtype: torch.dtype,
    implementation: ExpertsImplementation = "grouped_mm",
) -> nn.Module:
    """A filled module whose slot `i` is the expert `experts[i]` of `layer`; called as
    `empty_experts` says.
    """
    module = empty_experts(
        checkpoint, layer, len(experts), dtype, torch.device("cpu"), implementation
    )
    for slot, expert in enumerate(experts):
        fill_expert(module, slot, checkpoint.read_expert(layer, expert, dtype))
    return module


class LocalExperts(nn.Module):
    """Experts of one layer dealt out to `num_shares` modules in turn, and combined as the router
    combines them.
    """

    def __init__(
        self, checkpoint: Checkpoint, layer: int, dtype: torch.dtype, num_shares: int = 3
    ) -> None:
        super().__init__()
        hosted = [range(share, checkpoint.num_experts, num_shares) for share in range(num_shares)]
        self.shares = nn.ModuleList(
            build_experts(checkpoint, layer, experts, dtype) for experts in hosted
        )

    def forward(
        self, hidden: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """[tokens, hidden_size], [tokens, k], [tokens, k] -> [tokens, hidden_size]"""
        tokens, chosen = experts.shape
        flat = experts.reshape(-1)
        outputs = hidden.new_empty(tokens * chosen, hidden.shape[-1])
        for number, share in enumerate(self.shares):
            pairs = (flat % len(self.shares) == number).nonzero()[:, 0]
            slots = flat[pairs, None] // len(self.shares)
            outputs[pairs] = share(hidden[pairs // chosen], slots, hidden.new_ones(len(pairs), 1))
        return (outputs.view(tokens, chosen, -1) * weights[..., None]).sum(1).to(hidden.dtype)
