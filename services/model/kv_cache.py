"""The keys and values of all sequences, by layer and slot."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from services import kernels
from services.model.block_table import BLOCK_TOKENS, BlockPool


@dataclass(frozen=True)
class LayerShape:
    """What one token leaves behind in one attention layer."""

    key_heads: int
    key_width: int
    value_heads: int
    value_width: int

    @property
    def elements(self) -> int:
        return self.key_heads * self.key_width + self.value_heads * self.value_width


class KvCache:
    """Storage for `num_tokens` tokens, [slots, heads, width] for each layer's keys and values.

    Token p of a sequence lies in slot `table.first_slot + p` of every layer. `pool` says which
    slots are free.
    """

    def __init__(
        self,
        shapes: Mapping[int, LayerShape],
        num_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        num_blocks = num_tokens // BLOCK_TOKENS
        slots = num_blocks * BLOCK_TOKENS
        self.pool = BlockPool(num_blocks)
        self.num_tokens = slots
        self.dtype = dtype
        self._keys = {
            layer: torch.empty(slots, shape.key_heads, shape.key_width, dtype=dtype, device=device)
            for layer, shape in shapes.items()
        }
        self._values = {
            layer: torch.empty(
                slots, shape.value_heads, shape.value_width, dtype=dtype, device=device
            )
            for layer, shape in shapes.items()
        }
        self._for_kernels: dict[int, kernels.CachedLayer] = {}

    def write(
        self, layer: int, slots: torch.Tensor | slice, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Store keys and values [tokens, heads, width] at `slots` [tokens]."""
        if isinstance(slots, slice):
            self._keys[layer][slots] = keys
            self._values[layer][slots] = values
        else:
            self._keys[layer].index_copy_(0, slots, keys)
            self._values[layer].index_copy_(0, slots, values)

    def of_layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values of a layer, each [slots, heads, width]."""
        return self._keys[layer], self._values[layer]

    def for_kernels(self, layer: int) -> kernels.CachedLayer:
        """The same as `kernels.AttentionLayer` takes them; the layer's keys and values are of one
        width.
        """
        if layer not in self._for_kernels:
            self._for_kernels[layer] = kernels.CachedLayer(*self.of_layer(layer))
        return self._for_kernels[layer]

    def read(
        self, layer: int, first_slot: int, num_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of one sequence's keys and values, each [1, heads, num_tokens, width]."""
        end = first_slot + num_tokens
        keys = self._keys[layer][first_slot:end].transpose(0, 1)[None]
        values = self._values[layer][first_slot:end].transpose(0, 1)[None]
        return keys, values


def bytes_per_token(shapes: Mapping[int, LayerShape], dtype: torch.dtype) -> int:
    """What one token takes in all layers together."""
    return sum(shape.elements for shape in shapes.values()) * dtype.itemsize
