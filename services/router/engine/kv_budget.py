"""How much context and how many tokens the memory for keys and values allows: pure arithmetic on
settings.
"""

from dataclasses import dataclass

from services.model.block_table import BLOCK_TOKENS
from services.wire.errors import BadState


@dataclass(frozen=True)
class KvBudget:
    """The longest sequence, and the tokens of all sequences that there is room for."""

    max_context: int
    num_tokens: int


def kv_budget(
    kv_memory: int, bytes_per_token: int, *, asked: int | None, models: int, max_sequences: int
) -> KvBudget:
    """The context `asked` for, or as much of the `models` own as the memory holds, and no more than
    can be used.

    Raises BadState, with the figures, when the memory is below the context.
    """
    holds = kv_memory // bytes_per_token // BLOCK_TOKENS * BLOCK_TOKENS
    least = asked or BLOCK_TOKENS
    if holds < least:
        raise BadState(
            f"kv_memory of {kv_memory:,} bytes holds {holds} tokens at {bytes_per_token:,} bytes "
            "each, below the "
            f"context of {least}; raise kv_memory or lower max_context"
        )
    max_context = asked or min(models, holds)
    usable = -(-max_context // BLOCK_TOKENS) * BLOCK_TOKENS * max_sequences
    return KvBudget(max_context, min(holds, usable))
