"""The operations that compiled kernels stand in for, as the services call them: with kernels or
without, as the process was told by MOESAIC_KERNELS.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers.models.qwen3_moe.modeling_qwen3_moe import apply_rotary_pos_emb

from bench.kernels.model import LocalModel
from bench.rig.peers import random_gate
from services import kernels
from services.model.attention import packed_attention
from services.model.checkpoint import Checkpoint
from services.router.dispatch.combine import ExactCombine, Returned
from services.router.dispatch.frame_pairs import FramePairs, pairs_by_frame
from services.router.engine.step import StepInputs

NUM_KEYS = 100  # that each row of attention sees before its own
NUM_SERVICES = 2
# All that a step computes with kernels but its experts; "trunk" is that and what surrounds it.
TRUNK_KERNELS = "trunk's kernels"
MAX_PAIRS = 1 << 20
# Long beside the clock's resolution and what reading it costs.
LEAST_NANOS = 3_000_000

Call = Callable[[], object]


class Operations:
    """What a decode step of so many rows does in one layer, each thing alone, and the whole trunk's
    forward.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._local = LocalModel(checkpoint, dtype, checkpoint.moe_layers[:1])

    def of(self, num_rows: int, num_keys: int = NUM_KEYS) -> dict[str, Call]:
        """Every operation by its name; each call does it once, on the same inputs.

        Each row of attention sees so many keys before its own.
        """
        self._local.begin(_prompts(num_rows, num_keys, self._checkpoint.config.vocab_size), 1)
        inputs = self._local.inputs()
        rows = torch.randn(num_rows, self._checkpoint.hidden_size).to(self._dtype)
        return {
            **self._of_layer(rows),
            **self._of_attention(rows, inputs),
            **self._of_experts(rows),
            TRUNK_KERNELS: self._trunk_kernels(rows, inputs),
            "trunk": self._local.forward,
        }

    def _trunk_kernels(self, rows: torch.Tensor, inputs: StepInputs) -> Call:
        """Norms, attention and gates of every layer one after the other, and the head: so weights
        come from where they lie in a step.
        """
        model = self._local.model
        angles = model.model.rotary_emb(rows[None], inputs.positions[None])
        attending = {
            "hidden_states": rows[None],
            "position_embeddings": angles,
            "attention_mask": None,
            "packed": inputs.packed,
        }
        calls: list[Call] = []
        for layer in model.model.layers:
            calls += [
                partial(layer.input_layernorm, rows),
                partial(layer.self_attn, **attending),
                partial(layer.post_attention_layernorm, rows),
                partial(layer.mlp.gate, rows),
            ]
        calls += [partial(model.model.norm, rows), partial(model.lm_head, rows)]
        return lambda: [call() for call in calls]

    def _of_layer(self, rows: torch.Tensor) -> dict[str, Call]:
        layer, head = self._local.first_layer, self._local.model.lm_head
        projection = layer.self_attn.o_proj
        wide = torch.randn(len(rows), projection.in_features).to(self._dtype)
        return {
            f"linear {projection.in_features} x {projection.out_features}": lambda: projection(
                wide
            ),
            f"linear {head.in_features} x {head.out_features}, the head": lambda: head(rows),
            "norm": lambda: layer.input_layernorm(rows),
            "gate": lambda: layer.mlp.gate(rows),
        }

    def _of_attention(self, rows: torch.Tensor, inputs: StepInputs) -> dict[str, Call]:
        attention, packed, shape = (
            self._local.first_layer.self_attn,
            inputs.packed,
            self._local.first_shape,
        )
        num_heads = self._checkpoint.config.num_attention_heads
        angles = self._local.model.model.rotary_emb(rows[None], inputs.positions[None])
        query = torch.randn(len(rows), num_heads, shape.key_width).to(self._dtype)
        key, value = (
            torch.randn(len(rows), shape.key_heads, shape.key_width).to(self._dtype)
            for _ in range(2)
        )
        queries, keys, values = (part.transpose(0, 1)[None] for part in (query, key, value))
        scaling = shape.key_width**-0.5
        # Angles of zero, since the kernel turns in place: the numbers stay what they are however
        # often it runs.
        still = torch.ones_like(angles[0]), torch.zeros_like(angles[1])
        return {
            "rotary": lambda: _rotate(query, key, *still),
            "attend": lambda: packed_attention(
                attention, queries, keys, values, None, packed=packed, scaling=scaling
            ),
            "attention layer": lambda: attention(
                hidden_states=rows[None],
                position_embeddings=angles,
                attention_mask=None,
                packed=packed,
            ),
        }

    def _of_experts(self, rows: torch.Tensor) -> dict[str, Call]:
        num_experts, top_k = self._checkpoint.num_experts, self._checkpoint.num_experts_per_token
        slots = random_gate(len(rows), num_experts, top_k, 0).reshape(-1).numpy()
        pair_rows = np.repeat(np.arange(len(rows)), top_k)
        owners = np.arange(num_experts) % NUM_SERVICES
        weights = torch.full((len(rows), top_k), 1 / top_k, dtype=self._dtype)
        returned, combine = (
            self._returned(pairs_by_frame(slots, owners, top_k, MAX_PAIRS)),
            ExactCombine(),
        )
        return {
            "experts": lambda: self._local.experts(rows, pair_rows, slots),
            "scatter": lambda: pairs_by_frame(slots, owners, top_k, MAX_PAIRS),
            "combine": lambda: combine(returned, weights, rows),
        }

    def _returned(self, frames: Sequence[FramePairs]) -> list[Returned]:
        """Replies as they come from the services."""
        replies = []
        for pairs in frames:
            computed = torch.randn(len(pairs.positions), self._checkpoint.hidden_size).to(
                self._dtype
            )
            data = memoryview(computed.view(torch.uint8).numpy().tobytes())
            replies.append(Returned(pairs, pairs.positions, data, self._dtype))
        return replies


def cpu_micros(call: Call) -> float:
    """Microseconds of this thread's CPU time that a call takes: the mean of as many as take
    LEAST_NANOS.
    """
    call()
    count = 1
    while True:
        began = time.thread_time_ns()
        for _ in range(count):
            call()
        elapsed = time.thread_time_ns() - began
        if elapsed >= LEAST_NANOS:
            return elapsed / count / 1e3
        count *= 2


def _prompts(count: int, num_tokens: int, vocab_size: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    found: list[list[int]] = torch.randint(
        4, vocab_size, (count, num_tokens), generator=generator
    ).tolist()
    return found


def _rotate(
    query: torch.Tensor, key: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
) -> Any:
    if not kernels.AVAILABLE:
        return apply_rotary_pos_emb(query[None], key[None], cosines, sines, unsqueeze_dim=2)
    kernels.apply_rotary(query, cosines[0], sines[0])
    return kernels.apply_rotary(key, cosines[0], sines[0])
