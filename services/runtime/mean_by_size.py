"""What things of about one size take of late, learnt from those before them."""


class MeanBySize:
    """A running mean for each power of two: sizes of as many bits have one in common.

    The first value of a size counts whole, each later one a share of `smoothing`.
    """

    __slots__ = ("_means", "_smoothing")

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing
        self._means: dict[int, float] = {}  # by the bits of the size

    def __len__(self) -> int:
        """How many powers of two were met."""
        return len(self._means)

    def add(self, size: int, value: float) -> None:
        """Learn a value."""
        bits = size.bit_length()
        before = self._means.get(bits)
        self._means[bits] = value if before is None else before + self._smoothing * (value - before)

    def mean(self, size: int) -> float | None:
        """The mean of such sizes; None where none was met."""
        return self._means.get(size.bit_length())

    def fitted(self, size: int) -> float | None:
        """What something of this size takes whose values were for each unit of it: by the mean of
        such sizes, else of the next smaller ones, else a whole one of the next larger; None before
        any.
        """
        bits = size.bit_length()
        if bits not in self._means:
            smaller = [met for met in self._means if met < bits]
            if smaller:
                bits = max(smaller)
            elif self._means:
                bits = min(self._means)
                size = 1 << bits
            else:
                return None
        return self._means[bits] * size
