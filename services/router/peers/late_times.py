"""From when on a frame is late: what nineteen in twenty of its size take at most."""

# Of an estimate, where a frame took longer, and where it did not: nineteen frames that took less
# weigh as much as one that took more.
RISE = 0.05
FALL = RISE / 19
# Which the estimate begins with: the longest but one of so many, since the first may be cold.
FIRST_FRAMES = 20


class LateTimes:
    """The 95th percentile of late, for each power of two of a frame's pairs."""

    __slots__ = ("_first", "_late")

    def __init__(self) -> None:
        self._late: dict[int, float] = {}  # by the bits of the size
        self._first: dict[int, list[int]] = {}

    def add(self, num_pairs: int, nanos: int) -> None:
        """A frame of so many pairs took so long."""
        bits = num_pairs.bit_length()
        late = self._late.get(bits)
        if late is not None:
            self._late[bits] = late * (1 + RISE if nanos > late else 1 - FALL)
            return
        first = self._first.setdefault(bits, [])
        first.append(nanos)
        if len(first) == FIRST_FRAMES:
            self._late[bits] = float(sorted(self._first.pop(bits))[-2])

    def nanos(self, num_pairs: int) -> float | None:
        """What such frames take at most, but for one in twenty; None where too few were seen."""
        return self._late.get(num_pairs.bit_length())
