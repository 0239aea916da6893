"""How many tokens a sequence may have, given the model's positions."""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedConfig

from services.metadata.fields import Fields
from services.model.refusals import UnusableModel
from services.wire.ranges import Range

MAX_TOKENS = 2**32 - 1  # that can be said on the wire


@dataclass(frozen=True)
class ContextLimit:
    """Most tokens of a sequence, prompt and continuation together; `note` says why where it is not
    the usual limit.
    """

    tokens: int
    note: str | None


def context_limit(config: PreTrainedConfig) -> ContextLimit:
    """The limit of a model.

    Two kinds of rotary embedding, `longrope` and `dynamic`, choose their frequencies by the longest
    sequence of a batch: a long one would change its mates. Up to the length of the original
    training they do not.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        raise UnusableModel(
            f"config.json of this {config.model_type} model names no max_position_embeddings"
        )
    limit, note = min(limit, MAX_TOKENS), None
    for settings in _rope_settings(config):
        kind = settings.text("rope_type") or "default"
        original = settings.whole("original_max_position_embeddings", Range(1)) or limit
        if (kind == "longrope" and original < limit) or "dynamic" in kind:
            limit = min(limit, original)
            note = (
                f"contexts end at {limit} tokens, the length of the original training: beyond it "
                "the rotary embedding "
                f"({kind}) would make a sequence depend on those it shares a batch with"
            )
    return ContextLimit(limit, note)


def _rope_settings(config: PreTrainedConfig) -> Iterator[Fields]:
    """The settings of each rotary embedding: one for the model, or one for each type of layer."""
    settings = getattr(config, "rope_parameters", None)
    source = Fields("config.json: rope_parameters", settings if isinstance(settings, dict) else {})
    if "rope_type" in source.values:
        yield source
        return
    yield from (
        source.inner(name) for name, value in source.values.items() if isinstance(value, dict)
    )
