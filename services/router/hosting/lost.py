"""Experts that have lost their last replica, until each has one again."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence, Set

from services.router.dispatch.awaited import Awaited
from services.router.planning.order import NO_LOAD, LastLoad, next_batch
from services.wire.expert_key import ExpertKey

# So often may an expert be read before it is back: whoever loads it may be lost, too, but whoever
# is lost again and again does not get on.
MAX_READS = 3


class Lost:
    """Counts what was lost and what is back, and tells those who wait that loading gets on."""

    def __init__(self, awaited: Awaited) -> None:
        self.num_lost = 0
        self._awaited = awaited
        self._missing: Set[ExpertKey] = frozenset()
        self._num_reads: Counter[ExpertKey] = Counter()  # of those
        self._last_load = NO_LOAD
        self._layer: int | None = None  # where requests waited last for one of those

    @property
    def num_back(self) -> int:
        """Of those that were lost."""
        return self.num_lost - len(self._missing)

    def observe(self, missing: Iterable[ExpertKey]) -> None:
        """Take in which are on no service now."""
        before, self._missing = self._missing, frozenset(missing)
        self.num_lost = self.num_lost + len(self._missing - before) if self._missing else 0
        if not self._missing:
            self._layer = None
        if back := before - self._missing:
            for key in back:
                del self._num_reads[key]
            self._get_on()

    def note_read(self, experts: Iterable[ExpertKey]) -> None:
        """A load of these got on."""
        read = [key for key in experts if key in self._missing]
        self._num_reads.update(read)
        if any(self._num_reads[key] <= MAX_READS for key in read):
            self._get_on()

    def note_loaded(self, num_experts: int, seconds: float) -> None:
        """A load that somebody may wait for took so long."""
        self._last_load = LastLoad(num_experts, seconds)

    def next_batch(self, experts: Sequence[ExpertKey], expert_bytes: int) -> list[ExpertKey]:
        """What to load next of these, as requests that wait will need them."""
        awaited = self._awaited.experts & self._missing
        if awaited:
            self._layer = min(awaited).layer
        return next_batch(
            experts, self._awaited.experts, expert_bytes, self._layer, self._last_load
        )

    def _get_on(self) -> None:
        self._awaited.progressed_at = asyncio.get_running_loop().time()
