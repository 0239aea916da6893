"""Numbers for frames that a service cannot know before it has seen them."""

import os

NUM_AT_ONCE = 256
NUMBER_BYTES = 8


class FrameIds:
    """Random numbers of 63 bits, so that two of those in flight are not the same."""

    def __init__(self) -> None:
        self._numbers: list[int] = []

    def __call__(self) -> int:
        """Another one."""
        if not self._numbers:
            self._numbers = memoryview(os.urandom(NUM_AT_ONCE * NUMBER_BYTES)).cast("Q").tolist()
        return self._numbers.pop() >> 1
