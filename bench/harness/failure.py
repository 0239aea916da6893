"""A bench that cannot be run, said in a line."""

from services.wire.errors import ServingError


class BenchFailed(ServingError):
    """Something that the bench needs is missing or failed; the message says what to do about it."""
