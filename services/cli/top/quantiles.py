"""Quantiles of times of which only counts by bucket are known."""

from collections.abc import Mapping

# Of each bucket its upper bound and how many times it has, without those of smaller ones.
Buckets = Mapping[float, float]


def quantile(buckets: Buckets, share: float) -> float | None:
    """The time that `share` of all take at most, as if those of a bucket lay evenly in it; None
    where there are none. Beyond the last finite bound it is that bound.
    """
    total = sum(buckets.values())
    if total <= 0:
        return None
    wanted, below = share * total, 0.0
    for bound, count in sorted(buckets.items()):
        if count > 0 and wanted <= count:
            if bound == float("inf"):
                return below
            return below + (bound - below) * wanted / count
        wanted -= count
        below = bound if bound != float("inf") else below
    return below


def since(before: Buckets, now: Buckets) -> dict[float, float]:
    """What came between two looks; everything where counts fell, since another life began."""
    came = {bound: count - before.get(bound, 0) for bound, count in now.items()}
    return dict(now) if any(count < 0 for count in came.values()) else came
