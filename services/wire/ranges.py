"""Ranges of numbers: what is in one, and how that is said to whoever gave a number that is not, or
too many elements.
"""

import math
from collections.abc import Sized
from dataclasses import dataclass

from services.wire.errors import InvalidRequest


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`, without `least` where `is_above`."""

    least: float = -math.inf
    most: float = math.inf
    is_above: bool = False

    def holds(self, value: int | float) -> bool:
        """Whether the value is finite and in the range; of an integer of any size, too."""
        is_finite = isinstance(value, int) or math.isfinite(value)
        return (
            is_finite
            and self.least <= value <= self.most
            and not (self.is_above and value == self.least)
        )

    def __str__(self) -> str:
        least, most = number_text(self.least), number_text(self.most)
        if self.is_above:
            return f"above {least} and at most {most}"
        if self.most < math.inf:
            return f"from {least} to {most}"
        return f"of at least {least}" if self.least > -math.inf else ""


def number_text(value: int | float) -> str:
    """The number in full, so that no rounding brings it into a range that it is not in."""
    return repr(value).removesuffix(".0")


def check_count(field: str, elements: Sized, most: int) -> None:
    """Raises InvalidRequest, naming field and limit, for more than `most` elements."""
    if len(elements) > most:
        raise InvalidRequest(f"{field} has {len(elements)} elements; the limit is {most}")
