"""Durations and numbers for a person to read."""

MICROS_PER_MILLI = 1_000
MICROS_PER_SECOND = 1_000_000


def millis(micros: float) -> str:
    """A duration in milliseconds."""
    return f"{micros / MICROS_PER_MILLI:,.2f} ms"


def counted(number: int, thing: str) -> str:
    """So many things: `1 span`, `2 spans`."""
    return f"{number:,} {thing}{'s' * (number != 1)}"
