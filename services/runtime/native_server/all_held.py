"""What all connections hold of requests together, and which of them let go where that is too
much.
"""

from collections.abc import Collection
from typing import Protocol


class Holding(Protocol):
    """What one connection holds."""

    @property
    def num_bytes(self) -> int:
        """Of all its calls."""

    @property
    def is_behind(self) -> bool:
        """Whether calls have not begun of which some is held: they cannot be ended yet."""

    def change(self) -> int:
        """By how many bytes that has changed since this was asked last."""

    def shed(self) -> bool:
        """Let half of it go; False where that cannot be."""


class Holder(Protocol):
    """A connection."""

    @property
    def held(self) -> Holding:
        """What it holds."""

    def close(self) -> None:
        """It holds nothing then."""


class AllHeld:
    """Keeps what `holders` hold within `max_bytes`, but for what each of them reads in one go.
    Those that hold most let go: who holds little is not to suffer.
    """

    def __init__(self, max_bytes: int, holders: Collection[Holder]) -> None:
        self._max_bytes = max_bytes
        self._holders = holders
        self._num_bytes = 0

    def add(self, change: int) -> bool:
        """One of them holds so many bytes more, or fewer. False where it has to read no more now,
        and to tell again then: the fullest is behind, and judged when it is not.
        """
        self._num_bytes += change
        while self._num_bytes > self._max_bytes:
            # What handlers have taken meanwhile was not told.
            self._num_bytes += sum(each.held.change() for each in self._holders)
            if self._num_bytes > self._max_bytes:
                fullest = max(self._holders, key=lambda each: each.held.num_bytes)
                if fullest.held.is_behind:
                    return False
                if not fullest.held.shed():
                    fullest.close()
        return True
