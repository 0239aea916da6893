"""Counts the times between a sequence's tokens, as far as steps tell them."""

from bisect import bisect_left
from collections.abc import Iterator

# Nanoseconds, each a quarter more than the one before: from a tenth of a millisecond to a minute.
BOUNDS = tuple(int(100_000 * 1.25**power) for power in range(61))


class TokenGaps:
    """A sequence that is in two steps of a lane, one after the other, has a token in the second as
    long after that of the first as their ends are apart.
    """

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._ended: dict[int, int] = {}  # by lane, when its latest step ended

    def note(self, lane: int, ended: int, num_decoded: int) -> None:
        """A step of the lane ended, in which so many sequences that had tokens drew another."""
        before = self._ended.get(lane)
        self._ended[lane] = ended
        if before is not None and num_decoded:
            self._counts[bisect_left(BOUNDS, ended - before)] += num_decoded

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Bounds in nanoseconds and counts, where there are any; what is above all bounds counts
        for the last.
        """
        *counts, above = self._counts
        counts[-1] += above
        for bound, count in zip(BOUNDS, counts, strict=True):
            if count:
                yield bound, count
