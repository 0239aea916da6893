"""Watches the gates of a model: the losses that keep experts evenly used, and the counts of their
use.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class GateLosses:
    """Means over the layers."""

    balance: torch.Tensor
    logit_size: torch.Tensor


class GateWatch:
    """Remembers what every gate decided in the latest forward pass.

    The losses are taken layer by layer: pooled over layers, a busy expert of one layer could
    hide behind an idle one of another.
    """

    def __init__(self, model: PreTrainedModel, num_experts: int) -> None:
        self._num_experts = num_experts
        self._latest: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for layer, block in enumerate(model.model.layers):
            block.mlp.gate.register_forward_hook(self._remember(layer))

    def _remember(
        self, layer: int
    ) -> Callable[[nn.Module, object, tuple[torch.Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: object, outputs: tuple[torch.Tensor, ...]) -> None:
            logits, _, chosen = outputs
            self._latest[layer] = (logits, chosen)

        return hook

    def losses(self) -> GateLosses:
        balance, logit_size = torch.zeros(()), torch.zeros(())
        for logits, chosen in self._latest.values():
            logits = logits.float()  # [tokens, experts]
            counts = torch.bincount(chosen.reshape(-1), minlength=self._num_experts)
            share = counts.float() / chosen.numel()
            balance = balance + self._num_experts * (share * logits.softmax(-1).mean(0)).sum()
            logit_size = logit_size + logits.logsumexp(-1).square().mean()
        return GateLosses(balance / len(self._latest), logit_size / len(self._latest))

    def counts(self) -> torch.Tensor:
        """How many tokens each expert got, [layers, experts]."""
        return torch.stack(
            [
                torch.bincount(chosen.reshape(-1), minlength=self._num_experts)
                for _, chosen in self._latest.values()
            ]
        )
