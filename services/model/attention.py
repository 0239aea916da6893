"""Attention over a packed, ragged batch, plugged into transformers' models in place of their own.

One forward `[1, tokens]` holds prefill chunks and decodes of many sequences; the batch's metadata travels as the
keyword `packed` of the model's forward and reaches this function untouched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from services.model.kv_cache import KvCache, LayerShape
from services.wire.errors import BadState

NAME = "moesaic_packed"


@dataclass(frozen=True)
class Segment:
    """The tokens of one sequence in the batch: `num_tokens` of them from position `first_position` on."""

    first_token: int
    num_tokens: int
    first_position: int
    first_slot: int

    @property
    def num_keys(self) -> int:
        return self.first_position + self.num_tokens


@dataclass
class PackedBatch:
    """What attention has to know of a step's batch.

    `slots` [tokens] says where each token's keys and values go; tokens past `len(slots)` are padding. With
    `row_by_row` every query is computed by itself, so that its bits depend on its own keys alone.
    """

    cache: KvCache
    segments: Sequence[Segment]
    slots: torch.Tensor
    row_by_row: bool = False
    _masks: dict[tuple[int, int, int | None], torch.Tensor | None] = field(default_factory=dict)

    def mask(self, segment: Segment, window: int | None, device: torch.device) -> torch.Tensor | None:
        """Which keys each query of the segment may see, [queries, keys], or None for all; built once for all layers."""
        key = (segment.first_position, segment.num_tokens, window)
        if key not in self._masks:
            self._masks[key] = _causal_mask(segment, window, device)
        return self._masks[key]


@dataclass
class ShapeProbe:
    """Stands in for a batch to learn what each attention layer stores for a token."""

    shapes: dict[int, LayerShape] = field(default_factory=dict)


def plug_into(model: PreTrainedModel) -> None:
    """Make `model` compute attention with `packed_attention`; idempotent."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: PackedBatch | ShapeProbe,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each segment over its own sequence's keys.

    query [1, heads, tokens, width], key and value [1, kv heads, tokens, width] of the new tokens; returns
    [1, tokens, heads, value width]. `s_aux` holds a sink logit for each head, as gpt-oss has them. Raises
    BadState for a model that caps its attention's logits, which nothing here does.
    """
    if softcap is not None:
        raise BadState("the model caps the logits of its attention (softcap), which is not served")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    window = sliding_window or getattr(module, "sliding_window", None)
    if isinstance(packed, ShapeProbe):
        packed.shapes[layer] = LayerShape(key.shape[1], key.shape[3], value.shape[1], value.shape[3])
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None
    num_tokens = len(packed.slots)
    packed.cache.write(layer, packed.slots, *(t[0, :, :num_tokens].transpose(0, 1) for t in (key, value)))
    output = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])
    for segment in packed.segments:
        for part in _queries_of(segment, packed.row_by_row):
            end = part.first_token + part.num_tokens
            keys, values = packed.cache.read(layer, part.first_slot, part.num_keys)
            queries = query[:, :, part.first_token : end]
            mask = packed.mask(part, window, query.device)
            attended = _attend(queries, keys, values, mask, scaling, s_aux)
            output[:, part.first_token : end] = attended.transpose(1, 2)
    return output, None


def _queries_of(segment: Segment, row_by_row: bool) -> list[Segment]:
    if not row_by_row:
        return [segment]
    return [
        Segment(segment.first_token + row, 1, segment.first_position + row, segment.first_slot)
        for row in range(segment.num_tokens)
    ]


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    if sinks is None:
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling, enable_gqa=True)
    return _attend_with_sinks(query, keys, values, mask, scaling, sinks)


def _attend_with_sinks(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    sinks: torch.Tensor,
) -> torch.Tensor:
    # A sink takes part in the softmax and is dropped after it; fused kernels have no place for that.
    groups = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    scores = query @ keys.transpose(-1, -2) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    sink_column = sinks.reshape(1, -1, 1, 1).expand(1, -1, query.shape[2], 1).to(scores.dtype)
    with_sink = torch.cat([scores, sink_column], dim=-1)
    with_sink = with_sink - with_sink.max(dim=-1, keepdim=True).values
    weights = with_sink.softmax(dim=-1, dtype=with_sink.dtype)[..., :-1]
    return weights.to(values.dtype) @ values


def _causal_mask(segment: Segment, window: int | None, device: torch.device) -> torch.Tensor | None:
    if segment.num_tokens == 1 and (window is None or segment.num_keys <= window):
        return None
    keys = torch.arange(segment.num_keys, device=device)
    queries = torch.arange(segment.first_position, segment.num_keys, device=device)[:, None]
    seen = keys <= queries
    return seen if window is None else seen & (keys > queries - window)


def _no_mask(*_: Any, **__: Any) -> None:
    return None
