"""Attention layers of the common form by a call or a few of our kernels, where a trial shows them
to be of that form.

It is Llama's, Qwen3's and OLMoE's: projections to queries, keys and values, perhaps a normalisation
of each head or of all together, rotary embedding of whole heads by halves, attention, and a
projection of what it gives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from services import kernels
from services.model.attention import AttentionCall, AttentionProbe, packed_attention
from services.model.kernel_layers import KernelLinear, KernelNorm, called_directly, linear
from services.model.packed_batch import PackedBatch

# Inputs of these sizes show limits on values, and what a normalisation adds to the mean square.
TRIAL_SCALES = (0.01, 1.0, 100.0)
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


@called_directly
class FusedAttention(torch.nn.Module):
    """Does what `inner`, of the common form, does: in one call where each row of a batch is
    attended by itself.

    Else with one product for queries, keys and values. `call` is what `inner` called attention with
    at any time.
    """

    def __init__(self, inner: torch.nn.Module, call: AttentionCall) -> None:
        super().__init__()
        parts: Any = inner
        self.layer_idx: int = parts.layer_idx
        self.q_norm: KernelNorm | None = getattr(inner, "q_norm", None)
        self.k_norm: KernelNorm | None = getattr(inner, "k_norm", None)
        self.o_proj: KernelLinear = parts.o_proj
        projections: list[KernelLinear] = [getattr(inner, name) for name in PROJECTIONS]
        self.weight = _joined([projection.weight for projection in projections])
        biases = [projection.bias for projection in projections if projection.bias is not None]
        self.bias = _joined(biases) if biases else None
        self._always = projections[0].always
        self._width = call.query.shape[3]
        self._num_heads = [call.query.shape[1], call.key.shape[1], call.value.shape[1]]
        self._scores = call.scores
        self.kernel = None if call.scores.sinks is not None else self._in_one_call()
        self.most_rows = None if self._always else self._most_rows()

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        packed: PackedBatch | AttentionProbe,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """hidden_states [1, tokens, hidden], cosines and sines [1, tokens, width]; returns [1,
        tokens, hidden].
        """
        if self.kernel is None or isinstance(packed, AttentionProbe) or not packed.rows_are_alone:
            return self._by_parts(hidden_states, position_embeddings, packed)
        rows = packed.for_kernels(position_embeddings)
        if self.most_rows is not None and rows.num_rows > self.most_rows:
            return self._by_parts(hidden_states, position_embeddings, packed)
        return self.kernel(hidden_states, rows, packed.cache.for_kernels(self.layer_idx)), None

    def _in_one_call(self) -> kernels.AttentionLayer:
        norms = None
        if self.q_norm is not None and self.k_norm is not None:
            epsilons = self.q_norm.variance_epsilon, self.k_norm.variance_epsilon
            norms = kernels.HeadNorms(self.q_norm.weight, self.k_norm.weight, *epsilons)
        num_heads, num_key_heads, _ = self._num_heads
        out = self.o_proj
        weights = kernels.AttentionWeights(
            self.weight, self.bias, out.weight, out.bias, norms, num_heads, num_key_heads
        )
        return kernels.AttentionLayer(weights, self._scores.scaling, self._scores.window)

    def _most_rows(self) -> int:
        if self.q_norm is None or len(self.q_norm.numbers) == self._width:
            return kernels.most_layer_rows(self.weight)
        # All heads together are as wide as a large model, of which the product is nearly all.
        return kernels.most_linear_rows(self.weight)

    def _by_parts(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        packed: PackedBatch | AttentionProbe,
    ) -> tuple[torch.Tensor, None]:
        product = linear(hidden_states[0], self.weight, self.bias, always=self._always)
        query, key, value = (
            part.unflatten(1, (-1, self._width))
            for part in product.split([self._width * count for count in self._num_heads], dim=1)
        )
        if self.q_norm is not None and self.k_norm is not None:
            query, key = _normalised(query, self.q_norm), _normalised(key, self.k_norm)
        cosines, sines = position_embeddings[0][0], position_embeddings[1][0]
        kernels.apply_rotary(query, cosines, sines)
        kernels.apply_rotary(key, cosines, sines)
        attended = packed_attention(
            self,
            query.transpose(0, 1)[None],
            key.transpose(0, 1)[None],
            value.transpose(0, 1)[None],
            None,
            packed=packed,
            scaling=self._scores.scaling,
            sliding_window=self._scores.window,
            s_aux=self._scores.sinks,
        )[0]
        return self.o_proj(attended.reshape(1, len(product), -1)), None


def fuse_attention(model: torch.nn.Module, forward: Callable[[AttentionProbe], object]) -> None:
    """Replace the attention layers of `model` that are of the common form, in place.

    `forward` runs the model on some tokens with the probe as its batch. Of a layer that looks right
    the replacement is tried with the keywords seen there; it stays where all that it hands on has
    the same bits.
    """
    seen: dict[str, dict[str, Any]] = {}
    hooks = [
        module.register_forward_pre_hook(_note(seen, path), with_kwargs=True)
        for path, module in model.named_modules()
        if all(
            isinstance(getattr(module, name, None), KernelLinear)
            for name in (*PROJECTIONS, "o_proj")
        )
    ]
    forward(AttentionProbe())
    for hook in hooks:
        hook.remove()
    for path, keywords in seen.items():
        fused = _fused(model.get_submodule(path), keywords)
        if fused is not None:
            model.set_submodule(path, fused)


def _note(seen: dict[str, dict[str, Any]], path: str) -> Callable[..., None]:
    def note(
        _module: torch.nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        if not positional and {"hidden_states", "position_embeddings", "packed"} <= keywords.keys():
            seen[path] = keywords

    return note


def _fused(inner: torch.nn.Module, keywords: dict[str, Any]) -> FusedAttention | None:
    """The replacement of a layer that is called with such keywords, or None where it would not do
    the same.
    """
    _, call = _run(inner, keywords, keywords["hidden_states"])
    if not _looks_right(inner, call, keywords["position_embeddings"]):
        return None
    fused = FusedAttention(inner, call)
    generator = torch.Generator().manual_seed(0)
    for scale in TRIAL_SCALES:
        shape, dtype = keywords["hidden_states"].shape, keywords["hidden_states"].dtype
        hidden = (torch.randn(shape, generator=generator) * scale).to(dtype)
        (expected, before), (output, after) = (
            _run(inner, keywords, hidden),
            _run(fused, keywords, hidden),
        )
        pairs = [
            (expected, output),
            (before.query, after.query),
            (before.key, after.key),
            (before.value, after.value),
        ]
        if not all(torch.equal(one, other) for one, other in pairs):
            return None
    return fused


def _run(
    layer: torch.nn.Module, keywords: dict[str, Any], hidden: torch.Tensor
) -> tuple[torch.Tensor, AttentionCall]:
    probe = AttentionProbe()
    output, _ = layer(**{**keywords, "hidden_states": hidden, "packed": probe})
    (call,) = probe.calls.values()
    return output, call


def _looks_right(inner: torch.nn.Module, call: AttentionCall, position_embeddings: Any) -> bool:
    width, num_tokens = call.query.shape[3], call.query.shape[2]
    num_heads = [heads.shape[1] for heads in (call.query, call.key, call.value)]
    projections: list[KernelLinear] = [getattr(inner, name) for name in PROJECTIONS]
    norms = [getattr(inner, name, None) for name in ("q_norm", "k_norm")]
    return (
        call.value.shape[3] == width
        and call.value.shape[1] == call.key.shape[1]
        and len(inner.get_submodule("o_proj").get_parameter("weight")) == projections[0].in_features
        and [projection.out_features for projection in projections]
        == [width * heads for heads in num_heads]
        and len({projection.bias is None for projection in projections}) == 1
        and (
            norms == [None, None]
            or _norm_widths(norms) in ([width] * 2, [width * heads for heads in num_heads[:2]])
        )
        and isinstance(position_embeddings, tuple)
        and all(angles.shape == (1, num_tokens, width) for angles in position_embeddings)
        and all(angles.dtype == call.query.dtype for angles in position_embeddings)
    )


def _norm_widths(norms: Sequence[object]) -> list[int]:
    return [len(norm.weight) for norm in norms if isinstance(norm, KernelNorm)]


def _normalised(heads: torch.Tensor, norm: KernelNorm) -> torch.Tensor:
    """[tokens, heads, width], each head by itself or all of a token together."""
    is_each = len(norm.numbers) == heads.shape[2]
    return norm.forward(heads if is_each else heads.flatten(1)).view(heads.shape)


def _joined(parts: Sequence[torch.Tensor]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.cat([part.detach() for part in parts]), requires_grad=False)
