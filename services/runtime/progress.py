"""How far a reading of many bytes is, in words: how many of how many, how fast, how long yet."""

import time
from collections.abc import Callable

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class Progress:
    """Bytes that are read one after another, `total_bytes` in all, of which `done_bytes` are read.

    The rate is that since it was made. `now` gives seconds.
    """

    def __init__(
        self, total_bytes: int, done_bytes: int = 0, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._began, self._done_before = now(), done_bytes
        self.total_bytes, self.done_bytes = total_bytes, done_bytes

    def at(self, done_bytes: int) -> None:
        """Take in how many are read; a total that proves too small grows with them."""
        self.done_bytes = done_bytes
        self.total_bytes = max(self.total_bytes, done_bytes)

    @property
    def is_done(self) -> bool:
        """Whether all are read."""
        return self.done_bytes == self.total_bytes

    def __str__(self) -> str:
        factor, unit = _unit_of(self.total_bytes)
        read = f"{self.done_bytes / factor:.1f} of {self.total_bytes / factor:.1f} {unit}"
        passed, fresh = self._now() - self._began, self.done_bytes - self._done_before
        if self.is_done or fresh <= 0 or passed <= 0:
            return read
        left = (self.total_bytes - self.done_bytes) * passed / fresh
        return f"{read}, {fresh / passed / 1e6:,.0f} MB/s, {left:.0f} s left"


class Due:
    """Says when it is time again for what is to happen every so many seconds, at the soonest."""

    def __init__(self, every_seconds: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._every_seconds = every_seconds
        self._now = now
        self._next = now() + every_seconds

    def is_due(self) -> bool:
        """Whether it is; then it is not until as much time has passed once more."""
        now = self._now()
        if now < self._next:
            return False
        self._next = now + self._every_seconds
        return True


def _unit_of(num_bytes: int) -> tuple[float, str]:
    return next((unit for unit in UNITS if num_bytes >= unit[0]), UNITS[-1])
