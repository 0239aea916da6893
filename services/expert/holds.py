"""Which experts an operation counts on, so that no other operation lets them go meanwhile."""

import time
from collections.abc import Iterable
from typing import NamedTuple

from services.wire.errors import Outdated
from services.wire.expert_key import ExpertKey
from services.wire.quoting import quoted

# An operation that goes on asks for its holds anew; one that is gone is waited for no longer.
MAX_HOLD_SECONDS = 120.0
MAX_NAME_CHARACTERS = 128


class Hold(NamedTuple):
    """What an operation asks for with a load: that the experts stay for so long once they are
    ready.
    """

    operation: str
    seconds: float


class Holds:
    """Holds of several operations on the same expert stand side by side; each ends by itself when
    its time is up.
    """

    def __init__(self) -> None:
        self._ends: dict[ExpertKey, dict[str, float]] = {}  # by operation, by the monotonic clock

    def put(self, keys: Iterable[ExpertKey], operation: str, until: float) -> None:
        """Hold the experts for the operation until then, by the monotonic clock, instead of what it
        held before.
        """
        for key in keys:
            self._ends[key] = self._others(key, operation)
            self._ends[key][operation] = until

    def check(self, key: ExpertKey, operation: str) -> None:
        """Raise Outdated when an operation other than this one holds the expert."""
        for holder in self._others(key, operation):
            raise Outdated(
                f"expert {key.expert} of layer {key.layer} is held by operation {quoted(holder)}"
            )

    def forget(self, keys: Iterable[ExpertKey]) -> None:
        """These experts are gone."""
        for key in keys:
            self._ends.pop(key, None)

    def _others(self, key: ExpertKey, operation: str) -> dict[str, float]:
        now = time.monotonic()
        return {
            holder: until
            for holder, until in self._ends.get(key, {}).items()
            if holder != operation and until > now
        }
