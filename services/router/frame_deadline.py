"""How long a frame may take before its service counts as hung: pure arithmetic on measured round trips."""


class FrameDeadline:
    """`max(floor, factor x fitted time)`, the fit being a running mean of the time for each pair, by frame size.

    Sizes go by powers of two: a decode's single pair takes far longer for each pair than a prefill's thousands, and
    one mean for both would leave a hang in a prefill unnoticed for minutes.
    """

    def __init__(self, floor_seconds: float, factor: float = 20.0, smoothing: float = 0.1) -> None:
        self._floor_nanos = int(floor_seconds * 1e9)
        self._factor = factor
        self._smoothing = smoothing
        self._nanos_per_pair: dict[int, float] = {}  # by the bits of the number of pairs

    def nanos_for(self, num_pairs: int) -> int:
        """Nanoseconds that a frame of so many pairs is given; a size not met yet is fitted by the next smaller one."""
        met = [size for size in self._nanos_per_pair if size <= num_pairs.bit_length()]
        fitted = self._nanos_per_pair[max(met)] * num_pairs if met else 0.0
        return max(self._floor_nanos, int(self._factor * fitted))

    def observe(self, num_pairs: int, round_trip_nanos: int) -> None:
        """Learn from a frame that was answered."""
        size, measured = num_pairs.bit_length(), round_trip_nanos / max(1, num_pairs)
        before = self._nanos_per_pair.get(size, 0.0)
        self._nanos_per_pair[size] = before + self._smoothing * (measured - before)
