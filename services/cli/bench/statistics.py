"""Percentiles, token intervals and rates: functions of numbers alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np


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
    p50, p90, p95, p99 = percentiles(samples, 50, 90, 95, 99)
    return Distribution(len(samples), fmean(samples), p50, p90, p95, p99, max(samples))


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the samples lie, linear between neighbours; there is at
    least one.
    """
    return float(np.percentile(samples, percent))


def percentiles(samples: Sequence[float], *percents: float) -> list[float]:
    """Several of them."""
    found: list[float] = np.percentile(samples, percents).tolist()
    return found


def median(samples: Sequence[float]) -> float:
    """The middle of the samples; 0 where there is none."""
    return percentile(samples, 50) if samples else 0.0


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
