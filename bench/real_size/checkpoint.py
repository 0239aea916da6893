"""Checkpoints of real size with random weights, written layer by layer, once, below build/."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import OlmoeConfig

from bench.harness.command import OUTPUT
from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.real_size.sizes import NUM_HEADS, Size
from bench.rig.checkpoints import SEED, TEXT_FILES
from services.runtime.embedded_model import EMBEDDED_MODEL

# Drawing seven billion numbers takes minutes. Windows of these, at random places, take none, and
# are as random to whoever computes with them.
POOL_VALUES = 1 << 26
STANDARD_DEVIATION = 0.02
# What a file system needs beside the files, and whoever else writes.
MARGIN_BYTES = 1 << 30
INDEX = "model.safetensors.index.json"

Shape = tuple[int, ...]


def checkpoint_of(size: Size, stages: Stages, models: Path = OUTPUT / "models") -> Path:
    """The folder of a checkpoint of that size below `models`, which is made where it is not there.

    Raises BenchFailed where the disk has no room for it.
    """
    numbers = "-".join(str(value) for value in vars(size.shape).values())
    folder = models / f"real-{numbers}-{size.vocab_size}"
    if not folder.exists():
        _require_disk(size.total_bytes, models)
        shards = size.shape.num_hidden_layers + 1
        with stages.stage(f"making a checkpoint of {size}", shards):
            _write(size, folder, stages)
    return folder


def shards_of(size: Size) -> Iterator[tuple[str, dict[str, Shape]]]:
    """The files of a checkpoint, with the names and shapes of their tensors."""
    shape, hidden = size.shape, size.shape.hidden_size
    ends = {
        "model.embed_tokens.weight": (size.vocab_size, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (size.vocab_size, hidden),
    }
    total = shape.num_hidden_layers + 1
    yield f"model-{1:05}-of-{total:05}.safetensors", ends
    for layer in range(shape.num_hidden_layers):
        yield f"model-{layer + 2:05}-of-{total:05}.safetensors", dict(_layer(size, layer))


def _layer(size: Size, layer: int) -> Iterator[tuple[str, Shape]]:
    hidden, inner = size.shape.hidden_size, size.shape.intermediate_size
    prefix = f"model.layers.{layer}"
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}.{name}.weight", (hidden,)
    for name in ("q_norm", "k_norm"):
        yield f"{prefix}.self_attn.{name}.weight", (hidden,)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        yield f"{prefix}.self_attn.{name}.weight", (hidden, hidden)
    yield f"{prefix}.mlp.gate.weight", (size.shape.num_experts, hidden)
    for expert in range(size.shape.num_experts):
        own = f"{prefix}.mlp.experts.{expert}"
        yield f"{own}.gate_proj.weight", (inner, hidden)
        yield f"{own}.up_proj.weight", (inner, hidden)
        yield f"{own}.down_proj.weight", (hidden, inner)


def _write(size: Size, folder: Path, stages: Stages) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    random = torch.Generator().manual_seed(SEED)
    pool = torch.empty(min(POOL_VALUES, size.total_bytes // 2), dtype=torch.bfloat16)
    pool.normal_(std=STANDARD_DEVIATION, generator=random)
    places: dict[str, str] = {}
    for file, shapes in shards_of(size):
        tensors = {name: _drawn(name, shape, pool, random) for name, shape in shapes.items()}
        save_file(tensors, unfinished / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shapes, file)
        stages.step()
    index = {"metadata": {"total_size": size.total_bytes}, "weight_map": places}
    (unfinished / INDEX).write_text(json.dumps(index), encoding="utf-8")
    _config(size).save_pretrained(unfinished)
    for name in TEXT_FILES:
        shutil.copy(EMBEDDED_MODEL / name, unfinished / name)
    unfinished.rename(folder)


def _config(size: Size) -> OlmoeConfig:
    return OlmoeConfig(
        **vars(size.shape),
        vocab_size=size.vocab_size,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_HEADS,
        max_position_embeddings=4096,
        eos_token_id=0,
        pad_token_id=3,
        dtype="bfloat16",
        architectures=["OlmoeForCausalLM"],
    )


def _drawn(name: str, shape: Shape, pool: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)  # a norm's
    drawn = torch.empty(shape, dtype=torch.bfloat16)
    flat = drawn.view(-1)
    window = len(pool) // 2
    for begin in range(0, len(flat), window):
        count = min(window, len(flat) - begin)
        start = int(torch.randint(len(pool) - count + 1, (1,), generator=random))
        flat[begin : begin + count] = pool[start : start + count]
    return drawn


def _require_disk(num_bytes: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(folder).free, num_bytes + MARGIN_BYTES
    if free < needed:
        raise BenchFailed(
            f"the checkpoint takes {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB "
            f"are free: {(needed - free) / 1e9:.1f} GB are missing"
        )
