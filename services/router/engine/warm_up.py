"""Runs the shapes that serving will meet, so that the first request does not pay for them."""

import asyncio
import time

from services.router.engine.engine import Engine
from services.router.engine.sequence import Order, Sequence
from services.router.engine.step import Step
from services.wire.sampling import Sampling

NEW_TOKENS = 4
SEED_TOKEN_STRIDE = 7  # spreads the prompt over the vocabulary, and with it over the experts
SHORT_PROMPT_TOKENS = 64
# Where a full chunk takes longer than this, what its first time costs is little beside it.
FULL_CHUNK_SECONDS = 2.0


async def warm_up(
    engine: Engine,
    vocab_size: int,
    max_batch_tokens: int,
    max_context: int,
    *,
    short_tokens: int = SHORT_PROMPT_TOKENS,
    full_chunk_seconds: float = FULL_CHUNK_SECONDS,
) -> None:
    """A short prompt with some decodes, and a full prefill chunk where that is expected to take no
    longer than `full_chunk_seconds`, as on a device or with a small model.

    Raises the error that ends it, if one does.
    """
    full = max(1, min(max_batch_tokens, max_context - NEW_TOKENS))
    short = min(short_tokens, full)
    num_new = min(NEW_TOKENS, max_context - full)
    # It pays for what is done once. What comes after its first token costs the same again.
    least_seconds = await _run(engine, short, num_new, vocab_size)
    if least_seconds * full / short > full_chunk_seconds:
        return
    began = time.monotonic()
    await _run(engine, short, num_new, vocab_size)
    if (time.monotonic() - began) * full / short <= full_chunk_seconds:
        await _run(engine, full, num_new, vocab_size)


async def _run(engine: Engine, num_prompt: int, num_new: int, vocab_size: int) -> float:
    """Seconds from the first token to the end."""
    prompt = tuple(token * SEED_TOKEN_STRIDE % vocab_size for token in range(num_prompt))
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    first_token: float | None = None

    def listen(sequence: Sequence, token: int | None, _: Step | None) -> None:
        nonlocal first_token
        if token is not None and first_token is None:
            first_token = time.monotonic()
        if token is not None or sequence.ending is None:
            return
        if sequence.ending.error is not None:
            ended.set_exception(sequence.ending.error)
        else:
            ended.set_result(None)

    engine.submit(Order(prompt, Sampling(temperature=0.0), num_new), listen)
    await ended
    return 0.0 if first_token is None else time.monotonic() - first_token
