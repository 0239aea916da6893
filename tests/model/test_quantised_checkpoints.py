"""Quantised checkpoints are decoded expert by expert to what transformers, or the format's formula,
makes of them.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from services.model.checkpoint import Checkpoint
from services.model.trunk import build_trunk
from tests.checkpoints import VOCAB_SIZE, save_tiny
from tests.local_experts import LocalExperts
from tests.quantised import blocks_of, quantise_experts_to_mxfp4, quantise_to_fp8

CPU = torch.device("cpu")


def plain_copy(directory: Path, target: Path) -> Path:
    """The checkpoint in `directory`, dequantised to float32 by other means than ours."""
    shutil.copytree(directory, target)
    tensors = load_file(target / "model.safetensors")
    for name in list(tensors):
        if name.endswith("_blocks"):
            weight, scales = (
                name.removesuffix("_blocks"),
                tensors.pop(name.removesuffix("_blocks") + "_scales"),
            )
            tensors[weight] = convert_moe_packed_tensors(
                tensors.pop(name), scales, dtype=torch.float32
            )
        elif name.endswith("_scale_inv"):
            weight, scales = name.removesuffix("_scale_inv"), tensors.pop(name)
            tensors[weight] = tensors[weight].float()
            for row, column, block in blocks_of(tensors[weight]):
                block *= scales[row, column]
    save_file(tensors, target / "model.safetensors")
    config = json.loads((target / "config.json").read_text())
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config))
    return target


@torch.no_grad()
def assert_computes_like_its_plain_copy(directory: Path, copy: Path) -> None:
    checkpoint = Checkpoint.open(directory)
    model = build_trunk(
        checkpoint,
        torch.float32,
        CPU,
        lambda layer, _: LocalExperts(checkpoint, layer, torch.float32),
    )
    whole = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32).eval()
    tokens = torch.randint(0, VOCAB_SIZE, (2, 40), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model(tokens).logits, whole(tokens).logits, atol=1e-6, rtol=0)


def test_mxfp4_experts_are_those_that_transformers_decodes(tmp_path: Path) -> None:
    save_tiny("gpt_oss", tmp_path / "mxfp4", hidden_size=64, intermediate_size=96)
    plain = Checkpoint.open(tmp_path / "mxfp4").read_expert(1, 3)
    quantise_experts_to_mxfp4(tmp_path / "mxfp4")
    stored = load_file(tmp_path / "mxfp4" / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path / "mxfp4")

    for dtype in (torch.float32, torch.bfloat16):
        weights = checkpoint.read_expert(1, 3, dtype)
        for name in ("gate_up_proj", "down_proj"):
            prefix = f"model.layers.1.mlp.experts.{name}"
            decoded = convert_moe_packed_tensors(
                stored[f"{prefix}_blocks"], stored[f"{prefix}_scales"], dtype=dtype
            )
            assert torch.equal(weights[name], decoded[3])
            assert (weights[name].float() - plain[name]).abs().max() < 0.25 * plain[
                name
            ].abs().max()


def test_an_mxfp4_checkpoint_computes_like_its_plain_copy(tmp_path: Path) -> None:
    save_tiny("gpt_oss", tmp_path / "mxfp4", hidden_size=64, intermediate_size=32)
    quantise_experts_to_mxfp4(tmp_path / "mxfp4")

    assert_computes_like_its_plain_copy(
        tmp_path / "mxfp4", plain_copy(tmp_path / "mxfp4", tmp_path / "plain")
    )


def test_fp8_experts_are_those_that_transformers_decodes(tmp_path: Path) -> None:
    save_tiny("deepseek_v3", tmp_path, moe_intermediate_size=32)  # transformers wants whole blocks
    quantise_to_fp8(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    dequantise = Fp8Dequantize(None)._dequantize_one

    for dtype in (torch.float32, torch.bfloat16):
        weights = Checkpoint.open(tmp_path).read_expert(1, 3, dtype)
        gate, up, down = (
            dequantise(
                stored[f"{name}.weight"], stored[f"{name}.weight_scale_inv"], output_dtype=dtype
            )
            for name in (
                f"model.layers.1.mlp.experts.3.{which}_proj" for which in ("gate", "up", "down")
            )
        )
        assert torch.equal(weights["gate_up_proj"], torch.cat([gate, up]))
        assert torch.equal(weights["down_proj"], down)


def test_an_fp8_checkpoint_with_blocks_cut_at_the_edges_computes_like_its_plain_copy(
    tmp_path: Path,
) -> None:
    save_tiny("deepseek_v3", tmp_path / "fp8")  # 24 rows or columns: one block and a half
    quantise_to_fp8(tmp_path / "fp8")

    assert_computes_like_its_plain_copy(
        tmp_path / "fp8", plain_copy(tmp_path / "fp8", tmp_path / "plain")
    )


@pytest.mark.parametrize("family", ["gpt_oss", "deepseek_v3"])
def test_scales_are_part_of_what_is_hashed(family: str, tmp_path: Path) -> None:
    save_tiny(family, tmp_path, torch.bfloat16)
    (quantise_experts_to_mxfp4 if family == "gpt_oss" else quantise_to_fp8)(tmp_path)
    before = Checkpoint.open(tmp_path).content_hash(1, 3)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in tensors:
        if ".experts." in name and name.endswith(("_scales", "_scale_inv")):
            tensors[name] += 1
    save_file(tensors, tmp_path / "model.safetensors")

    assert Checkpoint.open(tmp_path).content_hash(1, 3) != before


def test_a_quantised_checkpoint_is_computed_in_the_type_of_its_configuration(
    tmp_path: Path,
) -> None:
    save_tiny("deepseek_v3", tmp_path, torch.bfloat16)
    quantise_to_fp8(tmp_path)

    checkpoint = Checkpoint.open(tmp_path)

    assert checkpoint.dtype is torch.bfloat16
    assert checkpoint.expert_bytes(1) == 3 * 32 * 24 * 2
    assert checkpoint.read_expert(1, 0)["down_proj"].dtype is torch.bfloat16
