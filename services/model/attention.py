"""Attention over a packed, ragged batch, plugged into transformers' models in place of their own.

One forward `[1, tokens]` holds prefill chunks and decodes of many sequences; the batch's metadata
travels as the keyword `packed` of the model's forward and reaches this function untouched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel

from services import kernels
from services.model.attend import Scores, attend
from services.model.kv_cache import LayerShape
from services.model.packed_batch import PackedBatch, Segment
from services.wire.errors import BadState

NAME = "moesaic_packed"
KERNEL_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class AttentionCall:
    """What a layer's attention was called with: heads [1, heads, tokens, width], and how they are
    weighed.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scores: Scores

    @property
    def stored(self) -> LayerShape:
        """What the layer stores for a token."""
        return LayerShape(
            self.key.shape[1], self.key.shape[3], self.value.shape[1], self.value.shape[3]
        )


@dataclass
class AttentionProbe:
    """Stands in for a batch to learn what attention is called with in each layer; the layers get
    ones back.
    """

    calls: dict[int, AttentionCall] = field(default_factory=dict)


def plug_into(model: PreTrainedModel) -> None:
    """Make `model` compute attention with `packed_attention`; idempotent."""
    # No mask is registered beside it, and without one transformers makes none.
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: PackedBatch | AttentionProbe,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each segment over its own sequence's keys.

    query [1, heads, tokens, width], key and value [1, kv heads, tokens, width] of the new tokens;
    returns [1, tokens, heads, value width]. `s_aux` holds a sink logit for each head, as gpt-oss
    has them. Raises BadState for a model that caps its attention's logits, which nothing here does.
    """
    if softcap is not None:
        raise BadState("the model caps the logits of its attention (softcap), which is not served")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    window = sliding_window or getattr(module, "sliding_window", None)
    scores = Scores(query.shape[3] ** -0.5 if scaling is None else scaling, window, s_aux)
    if isinstance(packed, AttentionProbe):
        packed.calls[layer] = AttentionCall(query, key, value, scores)
        return query.new_ones(1, query.shape[2], query.shape[1], value.shape[3]), None
    num_tokens = packed.num_tokens
    packed.cache.write(
        layer, packed.written, *(t[0, :, :num_tokens].transpose(0, 1) for t in (key, value))
    )
    if _kernel_serves(query, value, scores):
        return _attend_by_kernel(query, layer, packed, scores), None
    output = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])
    _attend_each(
        query, layer, packed, scores, packed.rows if packed.row_by_row else packed.segments, output
    )
    return output, None


def _kernel_serves(query: torch.Tensor, value: torch.Tensor, scores: Scores) -> bool:
    # With sinks, or values of another width, torch takes another way, whose roundings the kernel
    # does not have.
    if not kernels.AVAILABLE or scores.sinks is not None or value.shape[3] != query.shape[3]:
        return False
    return query.device.type == "cpu" and query.dtype in KERNEL_DTYPES


def _attend_by_kernel(
    query: torch.Tensor, layer: int, packed: PackedBatch, scores: Scores
) -> torch.Tensor:
    # A row's bits never depend on other rows there, so it serves prompts as well where every row
    # stands for itself.
    visible = packed.visible_keys(query.shape[2])
    keys, values = packed.cache.of_layer(layer)
    output = kernels.attend(
        query[0].transpose(0, 1),
        keys,
        values,
        visible.first_slots,
        visible.num_keys,
        scores.scaling,
        scores.window,
    )[None]
    _attend_each(query, layer, packed, scores, packed.chunks, output)
    return output


def _attend_each(
    query: torch.Tensor,
    layer: int,
    packed: PackedBatch,
    scores: Scores,
    segments: Sequence[Segment],
    output: torch.Tensor,
) -> None:
    for segment in segments:
        keys, values = packed.cache.read(layer, segment.first_slot, segment.num_keys)
        mask = packed.mask(segment, scores.window, query.device)
        attended = attend(query[:, :, segment.tokens], keys, values, mask, scores)
        output[:, segment.tokens] = attended.transpose(1, 2)
