"""Experts that nobody hosts: which of them requests wait for, and when loading them last got on."""

import math
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager

from services.wire.expert_key import ExpertKey


class Wait:
    """What one layer of one step waits for."""

    def __init__(self, counts: "Counter[ExpertKey]") -> None:
        self._counts = counts
        self._experts: Set[ExpertKey] = frozenset()

    def turn_to(self, experts: Set[ExpertKey]) -> None:
        """These it is from now on."""
        self._counts.update(experts - self._experts)
        for key in self._experts - experts:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
        self._experts = experts


class Awaited:
    """Between those who wait, the layers of steps, and those who load.

    `progressed_at` is when an expert that nobody hosted was last read, by the event loop's clock.
    """

    def __init__(self) -> None:
        self.progressed_at = -math.inf
        self._counts: Counter[ExpertKey] = Counter()

    @property
    def experts(self) -> Set[ExpertKey]:
        """All that are waited for."""
        return self._counts.keys()

    @contextmanager
    def wait(self) -> Iterator[Wait]:
        """Wait for experts until the block ends."""
        one = Wait(self._counts)
        try:
            yield one
        finally:
            one.turn_to(frozenset())
