"""What a service takes for a frame, estimated from its answers: round trip and time for each pair."""

import time

# An estimate that no answer has confirmed for so long counts half: a service that was slow is tried again some day,
# though others are preferred and nothing new is heard of it.
HALF_LIFE_NANOS = 1e9


class Pace:
    """Running means of one service's round trip without its own work, and of its time for a pair.

    Every frame is begun once, and ended or lost once.
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        self.in_flight_pairs = 0
        self.is_known = False
        self._smoothing = smoothing
        self._wire_nanos = 0.0
        self._nanos_per_pair = 0.0
        self.heard = 0  # when a frame was last answered, by the monotonic clock

    def begin(self, num_pairs: int) -> None:
        """A frame is on its way."""
        self.in_flight_pairs += num_pairs

    def end(self, num_pairs: int, round_trip_nanos: int, server_nanos: int) -> None:
        """A frame is answered; `server_nanos` is the service's own queue, computation and coding."""
        self.lose(num_pairs)
        wire, per_pair = max(0, round_trip_nanos - server_nanos), server_nanos / max(1, num_pairs)
        share = self._smoothing if self.is_known else 1.0
        self._wire_nanos += share * (wire - self._wire_nanos)
        self._nanos_per_pair += share * (per_pair - self._nanos_per_pair)
        self.heard = time.perf_counter_ns()
        self.is_known = True

    def lose(self, num_pairs: int) -> None:
        """A frame is given up."""
        self.in_flight_pairs -= num_pairs

    def estimate(self, now: int) -> tuple[float, float]:
        """Round trip without work and time for a pair, in nanoseconds, as they count at `now`; only where known."""
        kept = 0.5 ** (max(0, now - self.heard) / HALF_LIFE_NANOS)
        return self._wire_nanos * kept, self._nanos_per_pair * kept

    def expected_nanos(self, num_pairs: int) -> float:
        """From now to the answer of one more frame of so many pairs; 0 where nothing is known."""
        wire, per_pair = self.estimate(time.perf_counter_ns())
        return wire + (self.in_flight_pairs + num_pairs) * per_pair
