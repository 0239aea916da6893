"""Runs the shapes that serving will meet, so that the first request does not pay for them."""

import asyncio

from services.router.engine.engine import Engine
from services.router.engine.sequence import Order, Sequence
from services.router.engine.step import Step
from services.wire.sampling import Sampling

NEW_TOKENS = 4
SEED_TOKEN_STRIDE = 7  # spreads the prompt over the vocabulary, and with it over the experts


async def warm_up(engine: Engine, vocab_size: int, max_batch_tokens: int, max_context: int) -> None:
    """A full prefill chunk and some decodes. Raises the error that ends it, if one does."""
    num_prompt = max(1, min(max_batch_tokens, max_context - NEW_TOKENS))
    prompt = tuple(token * SEED_TOKEN_STRIDE % vocab_size for token in range(num_prompt))
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def listen(sequence: Sequence, token: int | None, _: Step | None) -> None:
        if token is not None or sequence.ending is None:
            return
        if sequence.ending.error is not None:
            ended.set_exception(sequence.ending.error)
        else:
            ended.set_result(None)

    engine.submit(
        Order(prompt, Sampling(temperature=0.0), min(NEW_TOKENS, max_context - num_prompt)), listen
    )
    await ended
