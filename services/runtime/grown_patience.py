"""How much longer somebody is waited for who was given up too soon."""

import math
from collections.abc import Callable


class GrownPatience:
    """A factor of the usual time: 1, doubled up to `most` whenever it was too short, and half as
    far from 1 again after each half life.
    """

    __slots__ = ("_clock", "_factor", "_grown_at", "_half_life_seconds", "_most")

    def __init__(self, most: float, half_life_seconds: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._half_life_seconds = half_life_seconds
        self._clock = clock
        self._factor = 1.0  # when it grew
        self._grown_at = 0.0

    def grow(self) -> None:
        """The time was too short."""
        self._factor = min(self._most, 2 * self.factor())
        self._grown_at = self._clock()

    def factor(self) -> float:
        """How many times the usual is given now."""
        if self._factor == 1.0:
            return 1.0
        halves = (self._clock() - self._grown_at) / self._half_life_seconds
        return 1.0 + (self._factor - 1.0) * math.pow(0.5, halves)  # counted from 1, where it ends
