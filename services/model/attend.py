"""Attention of queries over keys that lie ready, by torch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Scores:
    """How a layer weighs its keys: `sinks` [heads] are logits that take part in the softmax and
    have no value.
    """

    scaling: float
    window: int | None = None
    sinks: torch.Tensor | None = None


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scores: Scores,
) -> torch.Tensor:
    """query [1, heads, queries, width] over keys and values [1, kv heads, keys, width]; returns the
    shape of query.

    `mask` [queries, keys] says which keys each query sees; None for all.
    """
    if scores.sinks is not None:
        return _attend_with_sinks(query, keys, values, mask, scores.scaling, scores.sinks)
    return F.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, scale=scores.scaling, enable_gqa=True
    )


def _attend_with_sinks(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    sinks: torch.Tensor,
) -> torch.Tensor:
    # A sink takes part in the softmax and is dropped after it; fused kernels have no place for
    # that.
    groups = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    scores = query @ keys.transpose(-1, -2) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    sink_column = sinks.reshape(1, -1, 1, 1).expand(1, -1, query.shape[2], 1).to(scores.dtype)
    with_sink = torch.cat([scores, sink_column], dim=-1)
    with_sink = with_sink - with_sink.max(dim=-1, keepdim=True).values
    weights = with_sink.softmax(dim=-1, dtype=with_sink.dtype)[..., :-1]
    return weights.to(values.dtype) @ values
