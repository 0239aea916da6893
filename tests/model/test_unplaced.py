"""Tensors without a place in the model are warned of by name, unless transformers leaves them out
on purpose too.
"""

from pathlib import Path

import pytest
import torch

from services.model.checkpoint import Checkpoint
from tests.checkpoints import save_tiny
from tests.damage import refused, settings, tensors


def warned(family: str, folder: Path, caplog: pytest.LogCaptureFixture, *names: str) -> str:
    tensors(**{name: torch.zeros(2) for name in names})(save_tiny(family, folder))
    Checkpoint.open(folder)
    return caplog.text


def test_tensors_without_a_place_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    biases = [f"model.layers.{layer}.self_attn.q_proj.bias" for layer in range(3)]
    text = warned("qwen3_moe", tmp_path, caplog, *biases, "score.weight")
    assert "4 tensors have no place in this qwen3_moe model" in text
    assert "model.layers.*.self_attn.q_proj.bias (3), score.weight" in text


def test_a_layer_of_thousands_of_digits_has_no_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = warned("qwen3_moe", tmp_path, caplog, f"model.layers.{'9' * 5_000}.weight")
    assert "1 tensors have no place in this qwen3_moe model" in text


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.complex64, torch.float8_e4m3fn])
def test_a_tensor_without_a_place_may_be_of_any_type(
    dtype: torch.dtype, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_tiny("qwen3_moe", tmp_path)
    tensors(vision_blocks=torch.zeros(2).to(dtype), vision=torch.zeros(2).to(dtype))(tmp_path)
    Checkpoint.open(tmp_path)
    assert "2 tensors have no place in this qwen3_moe model" in caplog.text


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("qwen3_moe", "mtp.layers.0.mlp.gate.weight"),
        ("qwen3_moe", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("deepseek_v3", "model.layers.3.eh_proj.weight"),  # the layer after the last
        ("ernie4_5_moe", "model.mtp_block.0.input_layernorm.weight"),
    ],
)
def test_what_transformers_leaves_out_on_purpose_is_not_warned_of(
    family: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "no place" not in warned(family, tmp_path, caplog, name)


@pytest.mark.parametrize(
    "name",
    [
        "Qwen3MoeForSequenceClassification",
        "Qwen3MoeForTokenClassification",
        "Qwen3MoeForRewardModel",
        "Qwen3MoeForQuestionAnswering",
        "Qwen3MoeForCausalLMNextN",
        "Qwen3MoeModel",
        "NVEmbedModel",
    ],
)
def test_a_model_with_another_head_is_refused(name: str, tmp_path: Path) -> None:
    settings(architectures=[name])(save_tiny("qwen3_moe", tmp_path))
    refused(tmp_path, rf"config\.json: architectures is {name}")


@pytest.mark.parametrize(
    "architectures",
    [
        None,
        [],
        "x",
        ["Tiny"],
        ["TinyForCausalLM"],
        ["TinyLMHeadModel"],
        ["TinyModel", "TinyForCausalLM"],
    ],
)
def test_a_model_of_an_odd_name_or_of_none_is_not(architectures: object, tmp_path: Path) -> None:
    settings(architectures=architectures)(save_tiny("qwen3_moe", tmp_path))
    Checkpoint.open(tmp_path)
