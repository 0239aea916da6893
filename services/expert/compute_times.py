"""How long a batch will probably take, learnt from the batches before it."""

import math
from collections import defaultdict

SMOOTHING = 0.25


class ComputeTime:
    """A moving average of measured times: `nanos` is what such a batch took of late, infinite
    before the first.
    """

    __slots__ = ("nanos",)

    def __init__(self) -> None:
        self.nanos = math.inf

    def observe(self, nanos: int) -> None:
        """Learn what a batch took."""
        self.nanos = (
            nanos if self.nanos == math.inf else self.nanos + SMOOTHING * (nanos - self.nanos)
        )


class ComputeTimes:
    """A time for each kind of batch: those of about the same number of pairs and active experts are
    of one.
    """

    def __init__(self) -> None:
        self._times: defaultdict[tuple[int, int], ComputeTime] = defaultdict(ComputeTime)

    def of(self, num_pairs: int, num_active: int) -> ComputeTime:
        """The time of such batches."""
        return self._times[num_pairs.bit_length(), num_active.bit_length()]
