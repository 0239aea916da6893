"""The failure of one frame on a stream to an expert service."""

import time
from typing import Literal

from services.wire.errors import Unavailable


class FrameLost(Unavailable):
    """A frame that no answer will be taken for: its stream broke, or its service left it
    unanswered. `at` is when that was known, in nanoseconds of the monotonic clock.
    """

    def __init__(self, message: str, reason: Literal["broken", "deadline"]) -> None:
        super().__init__(message)
        self.reason = reason
        self.at = time.perf_counter_ns()
