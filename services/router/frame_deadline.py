"""How long a frame may take before its service counts as hung: pure arithmetic on measured round trips."""


class FrameDeadline:
    """`max(floor, factor x fitted time)`, the fit being a running mean of the round trip for each pair.

    Far below a request's own deadline, so that a hang is noticed by its frames.
    """

    def __init__(self, floor_seconds: float, factor: float = 20.0, smoothing: float = 0.1) -> None:
        self._floor_nanos = int(floor_seconds * 1e9)
        self._factor = factor
        self._smoothing = smoothing
        self._nanos_per_pair = 0.0

    def nanos_for(self, num_pairs: int) -> int:
        """Nanoseconds that a frame of so many pairs is given."""
        return max(self._floor_nanos, int(self._factor * self._nanos_per_pair * num_pairs))

    def observe(self, num_pairs: int, round_trip_nanos: int) -> None:
        """Learn from a frame that was answered."""
        measured = round_trip_nanos / max(1, num_pairs)
        self._nanos_per_pair += self._smoothing * (measured - self._nanos_per_pair)
