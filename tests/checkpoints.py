"""Random tiny checkpoints of every family that is served, saved to disk as a published one would
be.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.logging import disable_progress_bar

VOCAB_SIZE = 320
MAX_CONTEXT = 256
SPECIAL_TOKENS = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|pad|>")

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_TRAINING_TEXT = (
    "The gateway turns text into token ids, and the router sends rows to the experts that its "
    "gate has chosen.",
    "Four experts hold the other half of the weights; they answer in any order, and the rows are "
    "added in one.",
)

_SHARED: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": MAX_CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 3,
    "tie_word_embeddings": False,
}
_LATENT_ATTENTION: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
_MIXED: dict[str, Any] = {
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
}  # dense layers and expert layers
_ROUTED: dict[str, Any] = {
    **_MIXED,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
_LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.5, 2.0, 3.0, 4.0],
    "short_mscale": 1.1,
    "long_mscale": 1.3,
}

# What each family's configuration says beyond `_SHARED`. A key with a suffix is a variant of the
# family before it.
FAMILIES: dict[str, dict[str, Any]] = {
    "olmoe": {"num_key_value_heads": 4, "intermediate_size": 24, "num_experts": 8},
    "mixtral": {"intermediate_size": 24, "num_local_experts": 8},
    "qwen2_moe": {
        **_MIXED,
        "shared_expert_intermediate_size": 32,
        "num_experts": 8,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [0],
    },
    "qwen3_moe": {
        **_MIXED,
        "head_dim": 8,
        "num_experts": 8,
        "norm_topk_prob": True,
        "tie_word_embeddings": True,
    },
    "deepseek_v2": {
        **_ROUTED,
        **_LATENT_ATTENTION,
        "n_shared_experts": 2,
        "n_group": 4,
        "topk_group": 2,
        "topk_method": "group_limited_greedy",
        "routed_scaling_factor": 1.5,
    },
    "deepseek_v3": {
        **_ROUTED,
        **_LATENT_ATTENTION,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
    },
    "gpt_oss": {
        "head_dim": 8,
        "intermediate_size": 32,
        "num_local_experts": 8,
        "sliding_window": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "glm4_moe": {**_ROUTED, "head_dim": 8, "n_group": 2, "topk_group": 1},
    "granitemoe": {"intermediate_size": 24, "num_local_experts": 8},
    "phimoe": {"intermediate_size": 24, "num_local_experts": 8},
    "phimoe_longrope": {
        "intermediate_size": 24,
        "num_local_experts": 8,
        "rope_parameters": _LONGROPE,
    },
    "ernie4_5_moe": {
        **_MIXED,
        "moe_num_experts": 8,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
        "moe_layer_end_index": 2,
        "moe_layer_interval": 1,
    },
    "lfm2_moe": {
        **_MIXED,
        "num_experts": 8,
        "num_dense_layers": 1,
        "layer_types": ["conv", "full_attention", "conv"],
        "tie_word_embeddings": True,
    },
}

# Families that keep a state of their own in some layers.
REFUSED_FAMILIES = ("lfm2_moe",)
SERVED_FAMILIES = tuple(family for family in FAMILIES if family not in REFUSED_FAMILIES)


def tiny_config(family: str, **overrides: Any) -> PreTrainedConfig:
    """The configuration of a tiny model of `family`; `overrides` replace fields of it."""
    settings = {**_SHARED, **FAMILIES[family], **overrides}
    return CONFIG_MAPPING[family.removesuffix("_longrope")](**settings)


def tiny_model(
    family: str, dtype: torch.dtype = torch.float32, *, seed: int = 1, **overrides: Any
) -> PreTrainedModel:
    """A random model in `dtype` whose weights are large enough for gates, experts and logits to
    matter.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, **overrides))
        with torch.no_grad():
            _randomise(model)
    return model.to(dtype).eval()


def save_tiny(
    family: str,
    directory: Path,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 1,
    max_shard_size: str = "1GB",
    **overrides: Any,
) -> Path:
    """Write a random tiny checkpoint of `family` with its tokenizer to `directory`, and return
    that.

    `max_shard_size` splits the weights over several files with an index (`"20KB"` does);
    `overrides` replace fields of the configuration.
    """
    disable_progress_bar()
    tiny_model(family, dtype, seed=seed, **overrides).save_pretrained(
        directory, max_shard_size=max_shard_size
    )
    save_tokenizer(directory)
    return directory


def save_unsampled(directory: Path, *, seed: int = 1, **overrides: Any) -> Path:
    """`save_tiny` of an olmoe whose experts are so large that samples are not all of their tensors;
    returns the directory.
    """
    return save_tiny("olmoe", directory, seed=seed, intermediate_size=256, **overrides)


def save_tokenizer(directory: Path) -> None:
    """Write a byte-level tokenizer of VOCAB_SIZE ids, its configuration and a chat template to
    `directory`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "TokenizersBackend",
        "bos_token": SPECIAL_TOKENS[0],
        "eos_token": SPECIAL_TOKENS[0],
        "pad_token": SPECIAL_TOKENS[3],
        "extra_special_tokens": list(SPECIAL_TOKENS[1:3]),
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def _randomise(model: nn.Module) -> None:
    for name, weight in _weights(model):
        if name.endswith("gate.weight") or "router" in name:
            nn.init.normal_(weight, std=0.5)
        elif weight.ndim >= 2:
            nn.init.normal_(weight, std=0.15)
        else:  # norms, biases, sinks: around what they start as
            weight.add_(torch.randn_like(weight), alpha=0.1)


def _weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if "bias" in name)
