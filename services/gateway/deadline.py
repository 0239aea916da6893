"""The moment by which a request must be done, on this process's own clock."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Self, TypeVar

from services.wire.errors import DeadlinePassed

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock, which is the event loop's too."""

    at_seconds: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The moment `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining_seconds(self) -> float:
        """Time left; 0 when it has passed."""
        return max(0.0, self.at_seconds - time.monotonic())

    @property
    def remaining_nanos(self) -> int:
        """Time left as it travels; at least 1, because 0 would mean that there is no limit."""
        return max(1, round(self.remaining_seconds * 1e9))

    async def bound(self, awaitable: Awaitable[T], stage: str) -> T:
        """Await no longer than the deadline; DeadlinePassed says in which `stage` it passed."""
        try:
            async with asyncio.timeout_at(self.at_seconds):
                return await awaitable
        except TimeoutError as error:
            raise DeadlinePassed(f"the request's time was up while {stage}") from error
