"""Causal attention on a CPU, for training: one sequence at a time, so that its scores stay in the
cache.
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "cached_causal"


class CausalAttention(torch.autograd.Function):
    """Attention over whole windows without padding; keeps only the probabilities for
    the way back.
    """

    @staticmethod
    def forward(
        context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """All [batch, heads, window, head]; returns the same shape."""
        window = query.shape[2]
        hidden = torch.ones(window, window, dtype=torch.bool).triu(1)
        probabilities = torch.empty(*query.shape[:3], window, dtype=query.dtype)
        result = torch.empty_like(query)
        for row in range(len(query)):
            scores = torch.bmm(query[row], key[row].transpose(1, 2)).float().mul_(scale)
            probabilities[row] = scores.masked_fill_(hidden, float("-inf")).softmax(-1)
            torch.bmm(probabilities[row], value[row], out=result[row])
        context.save_for_backward(query, key, value, probabilities)
        context.scale = scale
        return result

    @staticmethod
    def backward(
        context: Any, slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        query, key, value, probabilities = context.saved_tensors
        slope = slope.contiguous()
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for row in range(len(query)):
            shares = probabilities[row]
            torch.bmm(shares.transpose(1, 2), slope[row], out=gradients[2][row])
            inner = torch.bmm(slope[row], value[row].transpose(1, 2))
            scores = torch._softmax_backward_data(inner, shares, -1, inner.dtype).mul_(
                context.scale
            )
            torch.bmm(scores, key[row], out=gradients[0][row])
            torch.bmm(scores.transpose(1, 2), query[row], out=gradients[1][row])
        return *gradients, None


def cached_causal(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls: query [batch, heads, window, head], result [batch, window, heads,
    head].
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    result: torch.Tensor = CausalAttention.apply(query, key, value, scaling)  # type: ignore[no-untyped-call]
    return result.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(NAME, cached_causal)
