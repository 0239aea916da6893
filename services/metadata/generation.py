"""What generation_config.json recommends for what a request leaves open, as transformers
understands it.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.metadata.fields import Fields, Range

Number = TypeVar("Number", int, float)

# What a request may ask for, too.
TEMPERATURES = Range(0, 100)
SHARES = Range(0, 1)
PENALTIES = Range(0, 100, is_above=True)
MAX_TOP_K = 2**32 - 1


@dataclass(frozen=True)
class SamplingDefaults:
    """How tokens are drawn where a request does not say it; without a recommendation nothing is
    filtered.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Recommendation:
    """What a checkpoint's author would have generation be."""

    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
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
    temperature = _or(generation.number("temperature", TEMPERATURES), 1.0)
    top_p = _or(generation.number("top_p", SHARES), 1.0)
    sampling = SamplingDefaults(
        temperature=temperature if generation.flag("do_sample") else 0.0,
        # -1 is what other engines write for 0.
        top_k=min(max(0, _or(generation.whole("top_k", Range(-1)), 0)), MAX_TOP_K),
        top_p=max(
            top_p, sys.float_info.min
        ),  # of 0 the most likely token is left, as of anything next to it
        min_p=_or(generation.number("min_p", SHARES), 0.0),
        repetition_penalty=_or(generation.number("repetition_penalty", PENALTIES), 1.0),
    )
    return Recommendation(sampling, generation.texts("stop_strings"))


def _or(value: Number | None, default: Number) -> Number:
    return default if value is None else value


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
