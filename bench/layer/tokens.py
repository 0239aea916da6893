"""What a dispatcher's rounding does to a model's tokens: greedy generation through it, free and on
a given text.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import torch

from bench.layer.path import checked
from bench.rig.prompts import text_prompts
from services.model.checkpoint import Checkpoint
from services.model.kv_cache import KvCache
from services.router.dispatch.dispatcher import Dispatcher
from services.router.engine.greenlets import run_awaiting
from services.router.engine.scheduler import Scheduler
from services.router.engine.sequence import Order, Sequence
from services.router.engine.step import Step
from services.router.engine.trunk import Numerics, Trunk
from services.router.times.receipt import SequenceReceipt
from services.wire.sampling import Sampling

NUM_PROMPTS = 8
PROMPT_TOKENS = 32
NUM_TOKENS = 32
CACHE_TOKENS = 1024


@dataclass(frozen=True)
class Generated:
    """Tokens [prompts, tokens], and the logits [prompts, tokens, vocabulary] that they were chosen
    by.
    """

    tokens: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class TokenErrors:
    """How far a generation is from another.

    `share_free` of the tokens differ where each goes on from its own, in so many continuations;
    `share_forced` where both read the other's text, and there logits differ by at most
    `largest_logit_difference`.
    """

    share_free: float
    num_continuations: int
    share_forced: float
    largest_logit_difference: float


class Generator:
    """The trunk of a model in this process, its experts behind whichever dispatcher is
    asked of it.
    """

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, *, num_tokens: int = NUM_TOKENS
    ) -> None:
        self._num_tokens = num_tokens
        self._numerics = Numerics(dtype, torch.device("cpu"))
        self._trunk = Trunk(checkpoint, self._numerics, self._compute)
        self._dispatcher: Dispatcher | None = None
        self._prompts = text_prompts(NUM_PROMPTS, PROMPT_TOKENS)

    async def generate(self, dispatcher: Dispatcher, text: torch.Tensor | None = None) -> Generated:
        """Greedy continuations of the prompts; with `text` [prompts, tokens] that is read whatever
        is the likeliest.

        Raises the error of the first row that could not be computed.
        """
        self._dispatcher = dispatcher
        cache = KvCache(
            self._trunk.kv_shapes, CACHE_TOKENS, self._numerics.dtype, self._numerics.device
        )
        length = PROMPT_TOKENS + self._num_tokens
        scheduler = Scheduler(
            cache.pool,
            max_sequences=NUM_PROMPTS,
            max_context=length,
            max_batch_tokens=NUM_PROMPTS * PROMPT_TOKENS,
        )
        sequences = [
            _submitted(scheduler, number, prompt, self._num_tokens)
            for number, prompt in enumerate(self._prompts, start=1)
        ]
        logits = []
        for position in range(self._num_tokens):
            logits.append(await self._step(scheduler, cache))
            likeliest = logits[-1].argmax(-1) if text is None else text[:, position]
            for sequence, token in zip(sequences, likeliest.tolist(), strict=True):
                sequence.take(token)
        drawn = torch.stack(logits, dim=1)
        return Generated(drawn.argmax(-1), drawn)

    async def errors(self, dispatcher: Dispatcher, exact: Generated) -> TokenErrors:
        """How far this dispatcher's generation is from the exact one."""
        free = (await self.generate(dispatcher)).tokens != exact.tokens
        forced = await self.generate(dispatcher, exact.tokens)
        return TokenErrors(
            float(free.float().mean()),
            int(free.any(1).sum()),
            float((forced.tokens != exact.tokens).float().mean()),
            float((forced.logits - exact.logits).abs().max()),
        )

    async def _step(self, scheduler: Scheduler, cache: KvCache) -> torch.Tensor:
        """Logits of every sequence's next token, in the order of submission."""
        batch = scheduler.next_batch(0)
        step = Step(0, batch)
        logits = await run_awaiting(partial(self._trunk.forward, step, cache), step)
        for work in checked(step).batch:
            work.sequence.num_computed += work.num_tokens
        return logits

    def _compute(
        self,
        step: Step,
        layer: int,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weights: torch.Tensor,
        meanwhile: Callable[[], None] | None,
    ) -> Awaitable[torch.Tensor]:
        assert self._dispatcher is not None, "the probing forward computes no experts"
        return self._dispatcher.compute(step, layer, hidden, index, weights, meanwhile)


def _submitted(scheduler: Scheduler, number: int, prompt: list[int], num_tokens: int) -> Sequence:
    order = Order(tuple(prompt), Sampling(temperature=0.0), num_tokens)
    sequence = Sequence(number, order, SequenceReceipt())
    scheduler.submit(sequence)
    return sequence
