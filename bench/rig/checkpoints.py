"""Random checkpoints of a given shape, made once with a fixed seed and kept under build/bench/."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    OlmoeConfig,
    PreTrainedConfig,
    Qwen3MoeConfig,
)
from transformers.utils.logging import disable_progress_bar

from bench.harness.command import OUTPUT
from services.runtime.embedded_model import EMBEDDED_MODEL

SEED = 20260101
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@dataclass(frozen=True)
class Shape:
    """A model's shape, as far as its experts are concerned."""

    hidden_size: int
    num_hidden_layers: int
    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int


# The model: 470 M parameters, in the layout of OLMoE.
OLMOE_470M = Shape(1024, 8, 32, 4, 512)
# A layer of it alone, and one of OLMoE-1B-7B.
LAYER_OF_470M = Shape(1024, 1, 32, 4, 512)
LAYER_OF_OLMOE = Shape(2048, 1, 64, 8, 1024)


def hollow(hidden_size: int, num_layers: int, num_experts: int, top_k: int) -> Shape:
    """Experts that take next to no memory, for devices that compute nothing."""
    return Shape(hidden_size, num_layers, num_experts, top_k, 8)


def whole_model(shape: Shape) -> Path:
    """A checkpoint of an OLMoE-shaped model that can generate, with the embedded model's
    tokenizer.
    """
    return _checkpoint(
        "olmoe", shape, OlmoeConfig, {"vocab_size": 16384, "num_attention_heads": 16}
    )


def experts_only(shape: Shape) -> Path:
    """A checkpoint that is next to nothing but its experts."""
    tiny = {"vocab_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    return _checkpoint(
        "experts", shape, Qwen3MoeConfig, {**tiny, "moe_intermediate_size": shape.intermediate_size}
    )


def gpt_oss_experts(shape: Shape) -> Path:
    """The same of gpt-oss's kind."""
    tiny = {"vocab_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    return _checkpoint("gpt-oss-experts", shape, GptOssConfig, tiny)


def _checkpoint(
    kind: str, shape: Shape, config_class: type[PreTrainedConfig], others: dict[str, Any]
) -> Path:
    numbers = "-".join(str(value) for value in asdict(shape).values())
    folder = OUTPUT / "models" / f"{kind}-{numbers}"
    if not folder.exists():
        config = config_class(**{**asdict(shape), "eos_token_id": 0, "pad_token_id": 3, **others})
        _write(config, folder)
    return folder


def _write(config: PreTrainedConfig, folder: Path) -> None:
    disable_progress_bar()
    torch.manual_seed(SEED)
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(unfinished)
    for name in TEXT_FILES:
        shutil.copy(EMBEDDED_MODEL / name, unfinished / name)
    unfinished.rename(folder)
