"""How many tokens a sequence may have, given the model's positions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from services.model.refusals import UnusableModel


@dataclass(frozen=True)
class ContextLimit:
    """Most tokens of a sequence, prompt and continuation together; `note` says why where it is not the usual limit."""

    tokens: int
    note: str | None


def context_limit(config: PreTrainedConfig) -> ContextLimit:
    """The limit of a model.

    Two kinds of rotary embedding, `longrope` and `dynamic`, choose their frequencies by the longest sequence of a
    batch: a long one would change its mates. Up to the length of the original training they do not.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        raise UnusableModel(f"the configuration of {config.model_type} names no max_position_embeddings")
    note = None
    for settings in _rope_settings(config):
        kind = settings.get("rope_type", "default")
        original = settings.get("original_max_position_embeddings") or limit
        if (kind == "longrope" and original < limit) or "dynamic" in kind:
            limit = min(limit, original)
            note = (
                f"contexts end at {limit} tokens, the length of the original training: beyond it the rotary embedding "
                f"({kind}) would make a sequence depend on those it shares a batch with"
            )
    return ContextLimit(limit, note)


def _rope_settings(config: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    """The settings of each rotary embedding: one for the model, or one for each type of layer."""
    settings = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in settings:
        yield settings
        return
    yield from (value for value in settings.values() if isinstance(value, dict))
