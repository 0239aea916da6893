"""Families that cannot be served are refused at once, with a sentence that says why."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import OlmoeForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from services.model.refusals import UnusableModel, refuse_experts
from tests.checkpoints import REFUSED_FAMILIES, save_tiny
from tests.damage import refused

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "vocab_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 32,
}


@pytest.mark.parametrize("family", REFUSED_FAMILIES)
def test_a_family_with_a_state_of_its_own_is_refused(family: str, tmp_path: Path) -> None:
    refused(
        save_tiny(family, tmp_path),
        r"layer 0 of lfm2_moe is of type conv, whose state is no plain cache",
    )


# Refused by config.json alone, so that no weights are needed.
REFUSED_CONFIGURATIONS = {
    "jamba": r"layer \d+ of jamba is of type linear_attention, whose state is no plain cache",
    "qwen3_next": r"layer 0 of qwen3_next is of type linear_attention",
    "minimax": r"layer \d+ of minimax is of type linear_attention",
    "deepseek_v32": r"layer 0 of deepseek_v32 is of type indexed_attention",
    "llama4_text": r"layer 0 of llama4_text is of type chunked_attention",
    "switch_transformers": r"switch_transformers is an encoder-decoder model",
    "qwen3_vl_moe": r"qwen3_vl_moe is a model of several parts \(.*vision_config",
    "vit": r"vit is not a causal language model",
}


@pytest.mark.parametrize("family", REFUSED_CONFIGURATIONS)
def test_a_family_that_is_no_plain_decoder_with_a_cache_is_refused(
    family: str, tmp_path: Path
) -> None:
    CONFIG_MAPPING[family]().save_pretrained(tmp_path)
    refused(tmp_path, REFUSED_CONFIGURATIONS[family])


def save_small(family: str, directory: Path, **fields: Any) -> Path:
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**SMALL, **fields}))
    model.save_pretrained(directory)
    return directory


def test_a_model_without_experts_is_refused(tmp_path: Path) -> None:
    refused(save_small("llama", tmp_path), r"llama is not a Mixture-of-Experts model")


def test_a_sparse_family_whose_layers_are_all_dense_is_refused(tmp_path: Path) -> None:
    save_tiny("qwen3_moe", tmp_path, mlp_only_layers=[0, 1, 2])
    refused(tmp_path, r"qwen3_moe is not a Mixture-of-Experts model")


def test_experts_that_cannot_be_called_apart_are_refused(tmp_path: Path) -> None:
    save_small("jetmoe", tmp_path, num_local_experts=4, kv_channels=8)
    refused(tmp_path, r"the experts of jetmoe \(JetMoeParallelExperts\) cannot be run apart")


def test_a_hybrid_family_is_refused_even_where_all_its_layers_are_attention(tmp_path: Path) -> None:
    mixing = {"layer_types": ["full_attention"] * 2, "mamba_n_heads": 8, "mamba_d_head": 8}
    save_small(
        "granitemoehybrid", tmp_path, num_local_experts=4, shared_intermediate_size=32, **mixing
    )
    refused(
        tmp_path,
        r"granitemoehybrid keeps a state of its own besides the keys and values of attention",
    )


def test_a_family_whose_attention_cannot_be_replaced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OlmoeForCausalLM, "_supports_attention_backend", False)
    refused(
        save_tiny("olmoe", tmp_path),
        r"the attention of olmoe cannot be replaced by one with a paged cache",
    )


def test_experts_that_share_a_weight_are_refused() -> None:
    experts = nn.Module()
    experts.register_parameter("down_proj", nn.Parameter(torch.zeros(4, 2, 2)))
    experts.register_parameter("norm", nn.Parameter(torch.zeros(2)))

    with pytest.raises(UnusableModel, match=r"layer 5: norm of Module is shared by its experts"):
        refuse_experts(5, experts, 4)
