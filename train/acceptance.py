"""The bars a model has to clear before it ships."""

from dataclasses import dataclass

MAX_STORY_BITS = 0.16
MAX_NATURAL_BITS = 1.65
MAX_DISTINCT_NAMES = 2.2
MIN_ASKED_FIRST = 0.70
SKEW_LOW, SKEW_HIGH = 1.3, 4.0
MIN_EXPERT_LOAD = 0.1
MAX_GREEDY_TOKENS = 200


@dataclass(frozen=True)
class Bar:
    """One line of the gate."""

    what: str
    wanted: str
    measured: str
    is_cleared: bool


@dataclass(frozen=True)
class Measured:
    """The figures the gate looks at; loads are relative to the mean of their layer."""

    story_bits: float
    natural_bits: float
    distinct_names: float
    asked_first: float
    highest_loads: list[float]
    lowest_load: float
    greedy_tokens: int | None


def bars(measured: Measured) -> list[Bar]:
    low, high = min(measured.highest_loads), max(measured.highest_loads)
    greedy = measured.greedy_tokens
    return [
        _at_most("stories, bits per byte", measured.story_bits, MAX_STORY_BITS, ".3f"),
        _at_most(
            "natural text, mean bits per byte", measured.natural_bits, MAX_NATURAL_BITS, ".3f"
        ),
        _at_most("distinct names in a story", measured.distinct_names, MAX_DISTINCT_NAMES, ".2f"),
        Bar(
            "the requested name comes first",
            f"at least {MIN_ASKED_FIRST:.0%}",
            f"{measured.asked_first:.0%}",
            measured.asked_first >= MIN_ASKED_FIRST,
        ),
        Bar(
            "busiest expert of a layer, times the mean",
            f"{SKEW_LOW} to {SKEW_HIGH}",
            f"{low:.2f} to {high:.2f}",
            low >= SKEW_LOW and high <= SKEW_HIGH,
        ),
        Bar(
            "least busy expert, times the mean",
            f"at least {MIN_EXPERT_LOAD}",
            f"{measured.lowest_load:.2f}",
            measured.lowest_load >= MIN_EXPERT_LOAD,
        ),
        Bar(
            "the greedy story ends by itself",
            f"within {MAX_GREEDY_TOKENS} tokens",
            "no" if greedy is None else f"after {greedy} tokens",
            greedy is not None and greedy <= MAX_GREEDY_TOKENS,
        ),
    ]


def _at_most(what: str, value: float, limit: float, form: str) -> Bar:
    return Bar(what, f"at most {limit}", format(value, form), value <= limit)
