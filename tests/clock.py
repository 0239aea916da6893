"""A clock that stands still but for what a test adds."""


class Clock:
    """Shows `seconds`."""

    def __init__(self, seconds: float = 100.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds
