"""What generation_config.json recommends for what a request leaves open, as transformers
understands it.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from services.metadata.fields import Fields
from services.wire.ranges import Range
from services.wire.sampling import (
    DEFAULTS,
    PARAMETERS,
    RECOMMENDABLE,
    SHARES,
    Sampling,
    is_whole,
)

# What the file may say besides what a request may: -1 is what other engines write for no limit, and
# the most likely token is left of a share of 0, as of anything next to it.
WIDER = {"top_k": Range(-1), "top_p": SHARES}
MAX_TOP_K = int(PARAMETERS["top_k"].allowed.most)


@dataclass(frozen=True)
class Recommendation:
    """What a checkpoint's author would have generation be."""

    sampling: Sampling = DEFAULTS
    stop_strings: tuple[str, ...] = ()


def read_recommendation(generation: Fields) -> Recommendation:
    """What the file says; one that does not say that it samples is of a greedy model, as it is to
    transformers.

    Recommended lengths are checked and not taken: that limit is the router's. Raises UnusableModel
    for a value that is none, and for one that would have other tokens drawn than are drawn here.
    """
    if not generation.values:
        return Recommendation()
    _refuse_what_is_not_done(generation)
    for limit in ("max_length", "max_new_tokens"):
        generation.whole(limit, Range(0))
    return Recommendation(_sampling(generation), generation.texts("stop_strings"))


def _sampling(generation: Fields) -> Sampling:
    stated: dict[str, Any] = {}
    for name, parameter in RECOMMENDABLE.items():
        read = generation.whole if is_whole(name) else generation.number
        value = read(name, WIDER.get(name, parameter.allowed))
        if value is not None:
            stated[name] = value
    sampling = replace(DEFAULTS, **stated)
    return replace(
        sampling,
        temperature=sampling.temperature if generation.flag("do_sample") else 0.0,
        top_k=min(max(0, sampling.top_k), MAX_TOP_K),
        top_p=max(sampling.top_p, sys.float_info.min),
    )


def _refuse_what_is_not_done(generation: Fields) -> None:
    for name, is_neutral in _NOT_DONE.items():
        value = generation.values.get(name)
        if value is not None and not is_neutral(value):
            generation.refuse(
                name,
                "null, or what leaves all tokens as they are, for nothing else is done here; "
                "--generation-config=ignore leaves the file aside",
            )


def _up_to(most: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and value <= most


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _outside_of_shares(value: Any) -> bool:
    return isinstance(value, int | float) and not 0 < value < 1


def _never(_: Any) -> bool:
    return False


# Fields that have transformers draw other tokens, each with the values at which it does nothing.
_NOT_DONE: dict[str, Callable[[Any], bool]] = {
    "num_beams": _up_to(1),
    "penalty_alpha": _up_to(0),
    "dola_layers": _never,
    "guidance_scale": _one_of(1),
    "typical_p": lambda value: isinstance(value, int | float) and value >= 1,
    "top_h": _never,
    "epsilon_cutoff": _outside_of_shares,
    "eta_cutoff": _outside_of_shares,
    "encoder_repetition_penalty": _one_of(1),
    "no_repeat_ngram_size": _up_to(0),
    "encoder_no_repeat_ngram_size": _up_to(0),
    "min_length": _up_to(1),  # the prompt counts, too
    "min_new_tokens": _up_to(0),
    "bad_words_ids": _one_of([]),
    "suppress_tokens": _one_of([]),
    "begin_suppress_tokens": _one_of([]),
    "sequence_bias": _one_of([], {}),
    "force_words_ids": _one_of([]),
    "constraints": _one_of([]),
    "forced_bos_token_id": _never,
    "forced_eos_token_id": _never,
    "exponential_decay_length_penalty": _never,
    "watermarking_config": _never,
    "token_healing": _one_of(False),
}
