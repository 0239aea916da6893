"""How long a batch will probably take, learnt from the batches before it."""

SMOOTHING = 0.25


class ComputeTimes:
    """Moving averages of measured times, for batches of about the same number of pairs and active experts."""

    def __init__(self) -> None:
        self._nanos: dict[tuple[int, int], float] = {}

    def expected_nanos(self, num_pairs: int, num_active: int) -> float | None:
        """What such a batch took of late; None when there was none like it."""
        return self._nanos.get(_kind(num_pairs, num_active))

    def observe(self, num_pairs: int, num_active: int, nanos: int) -> None:
        """Learn what a batch took."""
        kind = _kind(num_pairs, num_active)
        before = self._nanos.get(kind, float(nanos))
        self._nanos[kind] = before + SMOOTHING * (nanos - before)


def _kind(num_pairs: int, num_active: int) -> tuple[int, int]:
    return num_pairs.bit_length(), num_active.bit_length()
