"""Medians with their spread, and ratios of runs that were measured in turn."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.cli.bench.statistics import percentiles


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it; half of the samples lie between `low` and `high`."""

    median: float
    low: float
    high: float
    count: int

    def scaled(self, factor: float) -> "Spread":
        """The same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.count)


def spread_of(samples: Sequence[float]) -> Spread:
    """The spread of one sample or more; raises ValueError for none."""
    if not samples:
        raise ValueError("there are no samples")
    low, middle, high = percentiles(samples, 25, 50, 75)
    return Spread(middle, low, high, len(samples))


def ratio_of(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The spread of the ratio of each round: both of a pair met the machine in the same mood.

    Raises ValueError unless there is one of each in every round.
    """
    pairs = zip(numerators, denominators, strict=True)
    return spread_of([numerator / denominator for numerator, denominator in pairs])
