"""How long a batch will probably take, learnt from the batches before it."""

import math
from collections import defaultdict

from services.runtime.mean_by_size import MeanBySize

SMOOTHING = 0.25


class ComputeTimes:
    """A mean for each kind of batch: those of about the same number of pairs and active experts are
    of one.
    """

    def __init__(self) -> None:
        self._by_active: defaultdict[int, MeanBySize] = defaultdict(lambda: MeanBySize(SMOOTHING))

    def nanos(self, num_pairs: int, num_active: int) -> float:
        """What such a batch took of late; infinite before the first."""
        nanos = self._by_active[num_active.bit_length()].mean(num_pairs)
        return math.inf if nanos is None else nanos

    def add(self, num_pairs: int, num_active: int, nanos: int) -> None:
        """Learn what a batch took."""
        self._by_active[num_active.bit_length()].add(num_pairs, nanos)
