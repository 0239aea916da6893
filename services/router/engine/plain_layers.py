"""Steps through layers of the plain shape by a loop of our own: one call of our kernels between the
experts of two layers.

The plain shape is Mixtral's and Qwen's: normalisation, attention, sum, normalisation, a block with
the experts, sum. Everything is taken from transformers' modules as they stand in the model; whether
they are put together like this there, `plain_trial` finds out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services import kernels
from services.model.fused_attention import FusedAttention
from services.model.fused_gate import FusedGate
from services.model.kernel_layers import KernelNorm
from services.router.engine.remote_experts import RemoteExperts
from services.router.engine.step import StepInputs

AROUND = ("self_attn", "input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class PlainLayer:
    """What comes before a layer's block, for at most so many rows, and the block: its experts, or
    all of it where it is more than these and a gate of the common form.
    """

    number: int
    between: kernels.Between
    block: torch.nn.Module
    experts: RemoteExperts | None
    most_rows: int


class PlainLayers:
    """Does what `model` does for steps in which each row is attended by itself, on the CPU.

    `note_gate` is told after each gate how many nanoseconds it took.
    """

    def __init__(
        self, model: Any, layers: Sequence[PlainLayer], note_gate: Callable[[int], None]
    ) -> None:
        self._embed = model.get_input_embeddings()
        self.rotary = model.base_model.rotary_emb
        self._layers = layers
        self._norm = model.base_model.norm
        self._head = model.get_output_embeddings()
        self._most_rows = min(layer.most_rows for layer in layers)
        self._note_gate = note_gate

    def takes(self, inputs: StepInputs) -> bool:
        """Whether it computes such a step as the model would."""
        return inputs.packed.rows_are_alone and len(inputs.token_ids) <= self._most_rows

    def forward(self, inputs: StepInputs) -> torch.Tensor:
        """Logits of the rows to draw from, [drawing, vocabulary]."""
        hidden: torch.Tensor = self._embed(inputs.token_ids)
        cache = inputs.packed.cache
        rows = inputs.packed.for_kernels(self.rotary(hidden[None], inputs.positions[None]))
        arrived = None
        for layer in self._layers:
            chosen = layer.between(hidden, arrived, rows, cache.for_kernels(layer.number))
            arrived = self._by_experts(layer, chosen)
        hidden = hidden if arrived is None else hidden + arrived
        normed = self._norm(hidden)
        drawing = inputs.read_rows
        logits: torch.Tensor = self._head(normed if drawing is None else normed[drawing])
        return logits

    def _by_experts(self, layer: PlainLayer, chosen: kernels.Chosen) -> torch.Tensor:
        if layer.experts is None:
            output: torch.Tensor = layer.block(chosen.normed[None])[0]
            return output
        self._note_gate(chosen.gate_nanos)
        return layer.experts.forward(chosen.normed, chosen.indices, chosen.weights)


def read_off(model: Any, note_gate: Callable[[int], None]) -> PlainLayers | None:
    """The layers of a model that has the parts of the plain shape, by their names and kinds; else
    None.
    """
    base = model.base_model
    if not {"layers", "norm", "rotary_emb"} <= dict(base.named_children()).keys():
        return None
    layers = [_plain_layer(dict(layer.named_children())) for layer in base.layers]
    found = [layer for layer in layers if layer is not None]
    return PlainLayers(model, found, note_gate) if found and len(found) == len(layers) else None


def _plain_layer(parts: dict[str, torch.nn.Module]) -> PlainLayer | None:
    attention, before, after = (parts.pop(name, None) for name in AROUND)
    if (
        not isinstance(attention, FusedAttention)
        or not isinstance(before, KernelNorm)
        or not isinstance(after, KernelNorm)
        or attention.kernel is None
        or attention.most_rows is None
        or len(parts) != 1
    ):
        return None
    (block,) = parts.values()
    gate, experts = _gate_and_experts(block)
    norms = [kernels.Norm(norm.numbers, norm.variance_epsilon) for norm in (before, after)]
    try:
        between = kernels.Between(norms[0], attention.kernel, norms[1], gate)
    except ValueError:  # of another width or dtype
        return None
    return PlainLayer(attention.layer_idx, between, block, experts, attention.most_rows)


def _gate_and_experts(
    block: torch.nn.Module,
) -> tuple[kernels.Gate | None, RemoteExperts | None]:
    """Those of a block that has nothing else."""
    gates = [part for part in block.children() if isinstance(part, FusedGate)]
    experts = [part for part in block.children() if isinstance(part, RemoteExperts)]
    if len(gates) == len(experts) == 1 and len(list(block.children())) == 2:
        return gates[0].kernel, experts[0]
    return None, None
