"""Stored tensors that the model has no place for, which tells of a configuration that is not that
of the weights.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from transformers import PreTrainedModel

from services.model.transformers_internals import ignored_on_load

logger = logging.getLogger(__name__)

MAX_NAMED = 5
# Layers that predict several tokens at once, where they are not numbered on from the model's own.
MULTI_TOKEN = r"(^|\.)mtp(\.|_|$)"


def warn_of_unplaced(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Log how many of the tensors are not left out on purpose, and their names without the layers'
    numbers.
    """
    on_purpose = re.compile("|".join(f"({pattern})" for pattern in _left_out_on_purpose(model)))
    unexpected = [name for name in names if not on_purpose.search(name)]
    if unexpected:
        logger.warning(
            "%d tensors have no place in this %s model and are left out, though it may have been "
            "trained with them: %s",
            len(unexpected),
            model.config.model_type,
            _summed_up(unexpected),
        )


def _left_out_on_purpose(model: PreTrainedModel) -> Iterator[str]:
    """As `_adjust_missing_and_unexpected_keys` of transformers has it, and any family's layers for
    several tokens.
    """
    yield from ignored_on_load(model)
    yield MULTI_TOKEN
    first = getattr(model.config, "num_hidden_layers", None)
    more = getattr(model.config, "num_nextn_predict_layers", None) or getattr(
        model.config, "num_mtp_layers", None
    )
    if isinstance(first, int) and isinstance(more, int):
        yield from (rf"\.layers\.{layer}\." for layer in range(first, first + min(more, first)))
    buffers = [name for name, _ in model.named_buffers()]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        yield r"rotary_emb\.inv_freq"
    if any(name.endswith("position_ids") for name in buffers):
        yield r"(^|\.)position_ids$"


def _summed_up(names: Iterable[str]) -> str:
    kinds = Counter(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in names)
    shown = [
        f"{kind} ({count})" if count > 1 else kind
        for kind, count in list(kinds.items())[:MAX_NAMED]
    ]
    more = len(kinds) - len(shown)
    return ", ".join(shown) + (f" and {more} more kinds" if more else "")
