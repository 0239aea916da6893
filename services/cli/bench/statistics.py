"""Percentiles, token intervals and rates: functions of numbers alone."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Distribution:
    """How some samples are spread, in the samples' own unit."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


def distribution_of(samples: Sequence[float]) -> Distribution | None:
    """The spread of the samples; None where there is none."""
    if not samples:
        return None
    ordered = sorted(samples)
    p50, p90, p95, p99 = (percentile(ordered, percent) for percent in (50, 90, 95, 99))
    return Distribution(len(ordered), sum(ordered) / len(ordered), p50, p90, p95, p99, ordered[-1])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the samples lie, linear between neighbours, as numpy has
    it.

    `ordered` is sorted and not empty.
    """
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(samples: Sequence[float]) -> float:
    """The middle of the samples; 0 where there is none."""
    return percentile(sorted(samples), 50) if samples else 0.0


def token_intervals(arrivals: Sequence[int], counts: Sequence[int]) -> list[float]:
    """The times between the tokens of one response: one fewer than there are tokens.

    `arrivals` are the moments at which messages came and `counts` how many tokens each brought, all
    above 0. The time since the message before is shared out evenly among a message's tokens. The
    tokens that came together with the first one have waited for nothing: 0. So the intervals add up
    to the time from the first token to the last one, however the tokens were put into messages.
    """
    intervals = [0.0] * (counts[0] - 1) if counts else []
    for before, arrival, count in zip(arrivals, arrivals[1:], counts[1:], strict=False):
        intervals += [(arrival - before) / count] * count
    return intervals


def per_second(count: float, seconds: float) -> float:
    """A rate; 0 where no time has passed."""
    return count / seconds if seconds > 0 else 0.0
