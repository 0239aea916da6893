"""Fused attention stands in for layers that it does the same as, and for no others."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from services import kernels
from services.model.attention import AttentionProbe, plug_into
from services.model.fused_attention import FusedAttention, fuse_attention
from services.model.kernel_layers import use_kernels
from services.model.kv_cache import KvCache
from services.model.packed_batch import PackedBatch, Segment
from tests.checkpoints import tiny_model

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels are not built")
TOKENS = torch.arange(4)[None]


def forward(model: PreTrainedModel, probe: AttentionProbe) -> torch.Tensor:
    logits: torch.Tensor = model(
        input_ids=TOKENS, position_ids=TOKENS, use_cache=False, packed=probe
    ).logits
    return logits


def fused_layers(model: PreTrainedModel) -> int:
    return sum(isinstance(module, FusedAttention) for module in model.modules())


@torch.no_grad()
def with_kernels(family: str, dtype: torch.dtype, **overrides: Any) -> PreTrainedModel:
    model = tiny_model(family, dtype, **overrides).requires_grad_(False)
    plug_into(model)
    use_kernels(model, always=False)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen3_moe", "qwen2_moe", "mixtral", "granitemoe", "olmoe"])
def test_attention_of_the_common_form_is_fused_and_nothing_changes(
    family: str, dtype: torch.dtype
) -> None:
    model = with_kernels(family, dtype)
    before, after = AttentionProbe(), AttentionProbe()
    expected = forward(model, before)
    fuse_attention(model, lambda probe: forward(model, probe))
    assert fused_layers(model) == 3
    assert torch.equal(forward(model, after), expected)
    for layer, call in before.calls.items():
        assert torch.equal(after.calls[layer].query, call.query)
        assert torch.equal(after.calls[layer].key, call.key)
        assert torch.equal(after.calls[layer].value, call.value)
        assert after.calls[layer].scores == call.scores


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("olmoe", {"clip_qkv": 0.5}),
        ("glm4_moe", {}),  # it turns a part of each head
        ("deepseek_v3", {}),
    ],
)
def test_attention_of_another_form_stays(family: str, overrides: dict[str, float]) -> None:
    model = with_kernels(family, torch.bfloat16, **overrides)
    expected = forward(model, AttentionProbe())
    fuse_attention(model, lambda probe: forward(model, probe))
    assert fused_layers(model) == 0
    assert torch.equal(forward(model, AttentionProbe()), expected)


def in_steps(model: PreTrainedModel) -> list[torch.Tensor]:
    """Logits of a step with two prompts, of one of two decodes, and of one of a decode
    and a chunk.
    """
    probe = AttentionProbe()
    forward(model, probe)
    shapes = {layer: call.stored for layer, call in probe.calls.items()}
    cache = KvCache(shapes, 64, next(model.parameters()).dtype, torch.device("cpu"))
    # Each chunk is the sequence's first slot, how many of its tokens are there, and how many come.
    steps = [[(16, 0, 5), (32, 0, 3)], [(16, 5, 1), (32, 3, 1)], [(32, 4, 1), (16, 6, 4)]]
    logits = []
    for step in steps:
        segments: list[Segment] = []
        positions: list[int] = []
        for slot, start, count in step:
            segments.append(Segment(len(positions), count, start, slot))
            positions += range(start, start + count)
        slots = [slot + start + token for slot, start, count in step for token in range(count)]
        packed, places = (
            PackedBatch(cache, segments, torch.device("cpu")),
            torch.tensor(positions)[None],
        )
        output = model(
            input_ids=torch.tensor(slots)[None], position_ids=places, use_cache=False, packed=packed
        )
        logits.append(output.logits)
    return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen3_moe", "qwen2_moe", "mixtral", "granitemoe", "olmoe"])
def test_steps_have_the_same_bits_in_one_call_and_by_parts(family: str, dtype: torch.dtype) -> None:
    model = with_kernels(family, dtype)
    fuse_attention(model, lambda probe: forward(model, probe))
    whole, calls = in_steps(model), 0
    for module in model.modules():
        if isinstance(module, FusedAttention):
            assert module.kernel is not None
            module.kernel = None
            calls += 1
    assert calls == 3
    assert all(torch.equal(one, other) for one, other in zip(whole, in_steps(model), strict=True))


def test_a_layer_that_looks_common_and_does_something_more_stays() -> None:
    model = with_kernels("mixtral", torch.float32)
    inner = model.get_submodule("model.layers.1.self_attn")
    projection = inner.get_submodule("k_proj")
    # Only large values show it.
    projection.register_forward_hook(lambda _module, _inputs, output: output.clamp(-50, 50))
    fuse_attention(model, lambda probe: forward(model, probe))
    assert model.get_submodule("model.layers.1.self_attn") is inner
    assert fused_layers(model) == 2
