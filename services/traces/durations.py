"""Durations for a person to read."""

MICROS_PER_MILLI = 1_000


def millis(micros: float) -> str:
    """A duration in milliseconds."""
    return f"{micros / MICROS_PER_MILLI:,.2f} ms"
