"""The failure of one frame on a stream to an expert service."""

from typing import Literal

from services.wire.errors import Unavailable


class FrameLost(Unavailable):
    """A frame that no answer will be taken for: its stream broke, or its service left it
    unanswered.
    """

    def __init__(self, message: str, reason: Literal["broken", "deadline"]) -> None:
        super().__init__(message)
        self.reason = reason
