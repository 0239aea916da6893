"""How long a frame may take before its service counts as hung: arithmetic on measured
round trips.
"""

import time
from collections.abc import Callable

from services.runtime.grown_patience import GrownPatience
from services.runtime.mean_by_size import MeanBySize

IN_FLIGHT_FACTOR = 2
# However often a service was suspected for being slow, a hang is noticed within so many times the
# usual deadline.
MAX_PATIENCE = 16.0
PATIENCE_HALF_LIFE_SECONDS = 5.0


class FrameDeadline:
    """`max(floor, factor x fitted time)`, the fit being a running mean of the time for each pair,
    by frame size.

    Sizes go by powers of two: a decode's single pair takes far longer for each pair than a
    prefill's thousands, and one mean for both would leave a hang in a prefill unnoticed for
    minutes. A frame waits for those that the service has before it, so twice their fitted time is
    added. Until a frame was answered the floor is `unmeasured` times as high: a service that has
    just started computes its first frame slowly.
    """

    def __init__(
        self,
        floor_seconds: float,
        factor: float = 8.0,
        smoothing: float = 0.1,
        unmeasured: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._floor_nanos = int(floor_seconds * 1e9)
        self._factor = factor
        self._unmeasured = unmeasured
        self._nanos_per_pair = MeanBySize(smoothing)
        self._in_flight_nanos = 0
        self._patience = GrownPatience(MAX_PATIENCE, PATIENCE_HALF_LIFE_SECONDS, clock)

    def nanos_for(self, fitted_nanos: int) -> int:
        """Nanoseconds that a frame with this fitted time is given now."""
        if not self._nanos_per_pair:
            return int(self._floor_nanos * self._unmeasured)
        own = max(self._floor_nanos, int(self._factor * fitted_nanos))
        limit = own + IN_FLIGHT_FACTOR * self._in_flight_nanos
        return int(limit * self._patience.factor())

    def fitted_nanos(self, num_pairs: int) -> int:
        """Nanoseconds that a frame of so many pairs has taken.

        A size not met yet is fitted by the next smaller one, or by a whole frame of the next larger
        one; 0 before any.
        """
        return int(self._nanos_per_pair.fitted(num_pairs) or 0)

    def begin(self, fitted_nanos: int) -> None:
        """A frame that is fitted so is on its way."""
        self._in_flight_nanos += fitted_nanos

    def end(self, fitted_nanos: int) -> None:
        """It is answered, or given up."""
        self._in_flight_nanos -= fitted_nanos

    def observe(self, num_pairs: int, round_trip_nanos: int) -> None:
        """Learn from a frame that was answered."""
        self._nanos_per_pair.add(num_pairs, round_trip_nanos / max(1, num_pairs))

    def grow(self) -> None:
        """The service was suspected for being slow: frames are given twice the time, and less again
        as time goes by.
        """
        self._patience.grow()
