"""How many frames may be sent a second time: policy without I/O."""

# Copies that may be sent in a row after a quiet time.
MOST_KEPT = 10.0
# Of these kept back for frames that are far beyond what is usual: one in twenty is late anyway.
RESERVE = 5.0


class HedgeBudget:
    """A copy for each 1/`share` frames, some of which are kept for worse times; none with 0."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = MOST_KEPT if share else 0.0

    def earn(self, num_frames: int) -> None:
        """So many frames were sent."""
        left = self._left + self._share * num_frames
        self._left = left if left < MOST_KEPT else MOST_KEPT

    def may_spend(self, *, is_urgent: bool) -> bool:
        """Whether a copy may be sent now."""
        return self._left >= (1.0 if is_urgent else 1.0 + RESERVE)

    def spend(self, num_copies: int) -> None:
        """They are sent."""
        self._left -= num_copies
