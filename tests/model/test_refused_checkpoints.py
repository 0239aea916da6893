"""Every damaged checkpoint is refused at once, with a sentence that names what is at fault."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from services.model.checkpoint import Checkpoint
from services.model.configuration import CHOOSING_CODE
from tests.checkpoints import save_tiny
from tests.damage import Damage, refused, replaced, settings, tensors, truncated, without
from tests.quantised import quantise_experts_to_mxfp4, quantise_to_fp8

EXPERT = "model.layers.1.mlp.experts.3"


def headed(header: bytes) -> Damage:
    """The weights are nothing but this header."""
    return replaced("model.safetensors", struct.pack("<Q", len(header)) + header)


DAMAGED_FILES: dict[str, tuple[Damage, str]] = {
    "no config": (replaced("config.json", None), r"config\.json is missing"),
    "config no JSON": (replaced("config.json", b"{"), r"config\.json is not readable JSON"),
    "config no UTF-8": (replaced("config.json", b"\xff"), r"config\.json is not readable JSON"),
    "config no object": (replaced("config.json", b"[]"), r"config\.json holds no JSON object"),
    "unknown family": (
        settings(model_type="perceptron"),
        r"config\.json is of model type perceptron, which transformers does not know",
    ),
    "no family": (settings(model_type=None), r"config\.json is of model type None"),
    "family no text": (
        settings(model_type=["olmoe"]),
        r"config\.json is of model type \['olmoe'\]",
    ),
    "senseless quantisation": (
        settings(quantization_config="int4"),
        r"weights quantised by int4 are not read",
    ),
    "senseless setting": (
        settings(num_experts="many"),
        r"config\.json \(olmoe\) is not understood",
    ),
    "senseless sizes": (
        settings(num_attention_heads=0),
        r"transformers cannot build this olmoe model",
    ),
    "no positions": (settings(max_position_embeddings=0), r"names no max_position_embeddings"),
    "more experts a token than there are": (
        settings(num_experts_per_tok=9),
        r"sends a token to 9 experts; a layer has 8",
    ),
    "no experts a token": (
        settings(num_experts_per_tok=0),
        r"config\.json sends a token to 0 experts",
    ),
    "layers that are not there": (
        settings(num_hidden_layers=1000),
        r"num_hidden_layers is 1000, and the last of the tensors is model\.layers\.2\.",
    ),
    "experts that are not there": (
        settings(num_experts=10**9),
        r"num_experts is 1000000000, and the last of the tensors is \S+\.experts\.7\.",
    ),
    "a width that is another": (
        settings(hidden_size=2**40),
        r"model\.embed_tokens\.weight has shape \[320, 32\], .* hidden_size of 1099511627776",
    ),
    "layers without end": (
        settings(num_hidden_layers=10**9),
        r"config\.json: num_hidden_layers is 1000000000",
    ),
    "configuration nested too deep": (
        replaced("config.json", b'{"a": ' * 100_000),
        r"config\.json .*nested too deep",
    ),
    "no weights": (
        replaced("model.safetensors", None),
        r"neither model\.safetensors nor .*only safetensors",
    ),
    "truncated weights": (truncated("model.safetensors"), r"model\.safetensors is truncated"),
    "empty weights": (replaced("model.safetensors", b""), r"model\.safetensors is truncated"),
    "weights of another kind": (replaced("model.safetensors", b"x" * 100), r"no safetensors file"),
    "header nested too deep": (headed(b"[" * 100_000), r"model\.safetensors .*nested too deep"),
    "tensor's name no text": (
        headed(b'{"\\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'),
        r"model\.safetensors .*surrogates not allowed",
    ),
}

DAMAGED_WEIGHTS: dict[str, tuple[Damage, str]] = {
    "no projection": (without(f"{EXPERT}.up_proj"), r"expert 3 of layer 1 lacks its up_proj"),
    "no expert": (without(f"{EXPERT}."), r"expert 3 of layer 1 lacks its gate_proj"),
    "no experts": (
        without("layers.2.mlp.experts."),
        r"layer 2 has no gate_up_proj for its experts",
    ),
    "an expert too many": (
        tensors(**{"model.layers.1.mlp.experts.8.up_proj.weight": torch.zeros(24, 32)}),
        r"model\.layers\.1\.mlp\.experts\.8\.up_proj\.weight is of an expert that the "
        r"configuration does not have",
    ),
    "expert of the wrong shape": (
        tensors(**{f"{EXPERT}.down_proj.weight": torch.zeros(32, 23)}),
        r"experts\.3\.down_proj\.weight has shape \[32, 23\], where the model needs \[32, 24\]",
    ),
    "no norm": (without("model.norm.weight"), r"the checkpoint lacks model\.norm\.weight$"),
    "no attention": (
        without("layers.0.self_attn"),
        r"lacks model\.layers\.0\.self_attn\.\S+ and 5 more tensors",
    ),
    "no head": (without("lm_head.weight"), r"the checkpoint lacks lm_head\.weight$"),
    "trunk of the wrong shape": (
        settings(vocab_size=321),
        r"embed_tokens\.weight has shape \[320, 32\], where the model needs \[321, 32\]: "
        r"config\.json has vocab_size of 321",
    ),
    "small integers": (
        tensors(**{"lm_head.weight": torch.zeros(320, 32, dtype=torch.int8)}),
        r"lm_head\.weight is stored as I8, which is not read",
    ),
    "fp8 unannounced": (
        tensors(**{f"{EXPERT}.up_proj.weight": torch.zeros(24, 32, dtype=torch.float8_e4m3fn)}),
        r"experts\.3\.up_proj\.weight is stored in fp8 but has no block scales",
    ),
}


def test_a_configuration_does_not_choose_code(tmp_path: Path) -> None:
    plain = Checkpoint.open(save_tiny("olmoe", tmp_path)).config
    foreign = {"AutoConfig": "else/where--configuration.Evil", "AutoModelForCausalLM": "a.B"}
    kernels = dict.fromkeys(CHOOSING_CODE - {"auto_map"}, "else/where")
    settings(auto_map=foreign, task_specific_params={"auto_map": foreign}, **kernels)(tmp_path)
    config = Checkpoint.open(tmp_path).config
    assert not hasattr(config, "auto_map")
    assert "else/where" not in str(vars(config))
    assert config.to_dict() | {"task_specific_params": None} == plain.to_dict() | {
        "task_specific_params": None
    }


@pytest.mark.parametrize("case", DAMAGED_FILES)
def test_a_damaged_file_is_named(case: str, tmp_path: Path) -> None:
    damage, message = DAMAGED_FILES[case]
    damage(save_tiny("olmoe", tmp_path))
    refused(tmp_path, message)


@pytest.mark.parametrize("case", DAMAGED_WEIGHTS)
def test_a_missing_or_misshapen_tensor_is_named(case: str, tmp_path: Path) -> None:
    damage, message = DAMAGED_WEIGHTS[case]
    damage(save_tiny("olmoe", tmp_path))
    refused(tmp_path, message)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", r"nowhere is no directory")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_tiny("olmoe", tmp_path, max_shard_size="50KB")
    (tmp_path / "model-00002-of-00008.safetensors").unlink()
    refused(tmp_path, r"model-00002-of-00008\.safetensors is missing")


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    truncated("model-00003-of-00008.safetensors")(
        save_tiny("olmoe", tmp_path, max_shard_size="50KB")
    )
    refused(tmp_path, r"model-00003-of-00008\.safetensors is truncated")


def test_a_fused_tensor_of_too_few_experts_is_named(tmp_path: Path) -> None:
    save_tiny("granitemoe", tmp_path)
    name = "model.layers.2.block_sparse_moe.output_linear.weight"
    tensors(**{name: torch.zeros(7, 32, 24)})(tmp_path)
    refused(tmp_path, r"2\.block_sparse_moe\.output_linear\.weight has shape \[7, 32, 24\]")


def test_both_of_two_tied_weights_missing_is_noticed(tmp_path: Path) -> None:
    without("embed_tokens")(save_tiny("qwen3_moe", tmp_path))
    refused(tmp_path, r"the checkpoint lacks model\.embed_tokens\.weight and 1 more tensors")


@pytest.mark.parametrize(
    ("quantisation", "message"),
    [
        (
            {"quant_method": "gptq", "bits": 4},
            r"quantised by gptq are not read; fp8 with block scales and mxfp4 are",
        ),
        (
            {"load_in_4bit": True},
            r"quantised in a way without a name \(load_in_4bit=True\) are not read",
        ),
        ({}, r"quantised in a way without a name \(it is empty\)"),
        ({"quant_method": "fp8", "weight_block_size": [True, True]}, r"need a weight_block_size"),
        (
            {"quant_method": "fp8"},
            r"fp8 weights need a weight_block_size of two sides in the configuration, not None",
        ),
        ({"quant_method": "fp8", "weight_block_size": [128, 0]}, r"need a weight_block_size"),
    ],
)
def test_other_quantisations_are_refused(
    quantisation: dict[str, Any], message: str, tmp_path: Path
) -> None:
    settings(quantization_config=quantisation)(save_tiny("olmoe", tmp_path))
    refused(tmp_path, message)


FP8_SCALE = f"{EXPERT}.up_proj.weight_scale_inv"
MXFP4_WEIGHT = "model.layers.1.mlp.experts.down_proj"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (tensors(**{FP8_SCALE: None}), r"up_proj\.weight is stored in fp8 but has no block scales"),
        (
            tensors(**{FP8_SCALE: torch.ones(1, 2)}),
            r"scale_inv has shape \[1, 2\], where \[2, 2\] is needed",
        ),
    ],
)
def test_fp8_weights_need_scales_that_fit(damage: Damage, message: str, tmp_path: Path) -> None:
    quantise_to_fp8(save_tiny("deepseek_v3", tmp_path))
    damage(tmp_path)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (tensors(**{f"{MXFP4_WEIGHT}_scales": None}), r"down_proj_blocks has no scales"),
        (
            tensors(**{f"{MXFP4_WEIGHT}_scales": torch.ones(8, 32, 2, dtype=torch.uint8)}),
            r"down_proj_scales has shape \[8, 32, 2\], not \[8, 32, 1\]",
        ),
        (
            tensors(**{f"{MXFP4_WEIGHT}_blocks": torch.ones(8, 32, 16, dtype=torch.uint8)}),
            r"down_proj_blocks is not laid out as mxfp4: U8 \[8, 32, 16\]",
        ),
    ],
)
def test_mxfp4_weights_need_scales_that_fit(damage: Damage, message: str, tmp_path: Path) -> None:
    quantise_experts_to_mxfp4(save_tiny("gpt_oss", tmp_path))
    damage(tmp_path)
    refused(tmp_path, message)
