"""A router's trunk and its experts in one process, without a wire, driven step by step."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from services.expert import compiled
from services.expert.bank import Bank
from services.expert.grouped import GroupedExperts
from services.model.checkpoint import Checkpoint
from services.model.kv_cache import KvCache, LayerShape
from services.router.engine.greenlets import run_awaiting
from services.router.engine.scheduler import Scheduler
from services.router.engine.sequence import Order
from services.router.engine.sequence import Sequence as RoutedSequence
from services.router.engine.step import Step, StepInputs
from services.router.engine.trunk import Numerics, Trunk
from services.router.times.receipt import SequenceReceipt
from services.wire.sampling import Sampling

CPU = torch.device("cpu")
CACHE_TOKENS = 1 << 14
MOST_TOKENS = 1 << 13  # of one step, so that all prompts are read in one
EXPERT_MEMORY_BYTES = 1 << 30


class LocalModel:
    """Runs steps as a router does. Experts of `layers` are here; kernels are used as the process
    was told.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, layers: Sequence[int]) -> None:
        self._bank = Bank(checkpoint, dtype, CPU, EXPERT_MEMORY_BYTES)
        self._first_slots = {
            layer: number * checkpoint.num_experts for number, layer in enumerate(layers)
        }
        for layer, first in self._first_slots.items():
            for expert in range(checkpoint.num_experts):
                self._bank.fill(first + expert, layer, expert)
        self.experts = compiled.experts_of(self._bank) or GroupedExperts(
            self._bank, batch_invariant=False
        )
        self._trunk = Trunk(checkpoint, Numerics(dtype, CPU), self._compute)
        self._layer = layers[0]

    @property
    def model(self) -> Any:
        """transformers' model with whatever stands in for its modules."""
        return self._trunk.model

    @property
    def first_layer(self) -> Any:
        """The first layer that has experts."""
        return self.model.model.layers[self._layer]

    @property
    def first_shape(self) -> LayerShape:
        """What that layer's attention stores for a token."""
        return self._trunk.kv_shapes[self._layer]

    def begin(self, prompts: Sequence[Sequence[int]], num_new_tokens: int) -> None:
        """Forget what was there, read the prompts with made-up experts, and be before the
        next step.
        """
        self._submit(prompts, num_new_tokens + 1)
        self._advance(self.forward(), [0] * len(prompts))

    def forward(self) -> torch.Tensor:
        """Logits [sequences, vocabulary] of the next step with made-up experts, which may
        be repeated.
        """
        return self._trunk.forward(Step(0, self._scheduler.next_batch(0)), self._cache)

    def inputs(self) -> StepInputs:
        """What the next step's forward is called with."""
        return Step(0, self._scheduler.next_batch(0)).inputs(self._cache, CPU, None)

    def forced_logits(
        self, prompts: Sequence[Sequence[int]], text: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Logits in float32 of each token of `text`, which goes on from `prompts`: [prompts,
        tokens, vocabulary].

        The prompts are read in one step, the text in a step for each token, whatever is the
        likeliest.
        """
        self._submit(prompts, len(text[0]))
        return asyncio.run(self._forced(text))

    async def _forced(self, text: Sequence[Sequence[int]]) -> torch.Tensor:
        logits = []
        for tokens in zip(*text, strict=True):
            step = Step(0, self._scheduler.next_batch(0))
            logits.append(await run_awaiting(partial(self._trunk.forward, step, self._cache), step))
            self._advance(logits[-1], tokens)
        return torch.stack(logits, dim=1)

    def _submit(self, prompts: Sequence[Sequence[int]], num_new_tokens: int) -> None:
        self._cache = KvCache(self._trunk.kv_shapes, CACHE_TOKENS, self._trunk.numerics.dtype, CPU)
        self._scheduler = Scheduler(
            self._cache.pool,
            max_sequences=len(prompts),
            max_context=CACHE_TOKENS,
            max_batch_tokens=MOST_TOKENS,
        )
        orders = [
            Order(tuple(prompt), Sampling(temperature=0.0), num_new_tokens) for prompt in prompts
        ]
        self._sequences = [
            RoutedSequence(number, order, SequenceReceipt()) for number, order in enumerate(orders)
        ]
        for sequence in self._sequences:
            self._scheduler.submit(sequence)

    def _advance(self, logits: torch.Tensor, tokens: Sequence[int]) -> None:
        for sequence, token in zip(self._sequences, tokens, strict=True):
            sequence.num_computed = sequence.num_tokens
            sequence.take(token)

    async def _compute(
        self,
        step: Step,
        layer: int,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weights: torch.Tensor,
        meanwhile: Callable[[], None] | None,
    ) -> torch.Tensor:
        assert meanwhile is None, "neither model has a shared expert"
        slots = index.reshape(-1).numpy() + self._first_slots[layer]
        pair_rows = np.repeat(np.arange(len(hidden)), index.shape[1])
        rows = self.experts(hidden, pair_rows, slots).view(*index.shape, -1)
        return (rows * weights[..., None]).sum(1).to(hidden.dtype)
