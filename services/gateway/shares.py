"""What of a bound one client may have."""

import math


def share_of(bound: int, share: float) -> int:
    """So much of `bound`, and one at least."""
    return max(1, math.ceil(bound * share))
