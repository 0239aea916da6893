"""The truth about which experts are hosted here: states, content hashes and the generation that
counts changes.
"""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from services.expert.holds import Holds
from services.runtime.notice import Notice
from services.wire.errors import BadState, Outdated, Overloaded
from services.wire.expert_key import ExpertKey


class ExpertState(Enum):
    """What an expert is doing here."""

    LOADING = "loading"
    READY = "ready"
    RETIRING = "retiring"


@dataclass(frozen=True)
class Hosted:
    """One expert: its state, the slot of memory that is its own, and its hash once it is ready."""

    state: ExpertState
    slot: int
    content_hash: bytes = b""


@dataclass(frozen=True)
class HostingSnapshot:
    """The hosting, whole, ordered by layer and expert."""

    generation: int
    experts: tuple[tuple[ExpertKey, Hosted], ...]
    num_free: int
    is_draining: bool = False


class Hosting:
    """Which expert is in which slot. Every change of it is one generation more; a change fails
    whole or not at all.

    Of two planners that planned with the same generation the second is refused with Outdated.
    """

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._free = list(reversed(range(num_slots)))
        self._hosted: dict[ExpertKey, Hosted] = {}
        self._holds = Holds()
        self._generation = 1
        self._changed = Notice()
        self._num_watchers = 0
        self._is_draining = False
        self._is_closed = False

    @property
    def generation(self) -> int:
        """Grows by one with each change."""
        return self._generation

    @property
    def num_free(self) -> int:
        """Experts that there is still memory for."""
        return len(self._free)

    @property
    def num_hosted(self) -> int:
        """Experts that take memory, whatever their state."""
        return len(self._hosted)

    def content_hash(self, key: ExpertKey) -> bytes:
        """That of an expert that is hosted and read; else empty."""
        hosted = self._hosted.get(key)
        return b"" if hosted is None else hosted.content_hash

    def begin_loading(
        self, keys: Iterable[ExpertKey], expected_generation: int
    ) -> dict[ExpertKey, int]:
        """Give a slot to each expert that has none and mark it as loading; the slots of those, in
        order.

        Raises Outdated when the generation is another, or an expert is on its way in or out by
        another call, BadState when the service is draining and Overloaded when the memory is too
        small; nothing has changed then.
        """
        self._expect(expected_generation)
        wanted = dict.fromkeys(keys)
        for key in wanted:
            if key in self._hosted and self._hosted[key].state is not ExpertState.READY:
                raise Outdated(
                    f"expert {key.expert} of layer {key.layer} is {self._hosted[key].state.value}"
                )
        new = [key for key in wanted if key not in self._hosted]
        if new and self._is_draining:
            raise BadState("the service is draining: it takes no more experts")
        if len(new) > len(self._free):
            raise Overloaded(
                f"experts has {len(new)} that are not hosted; expert_memory has room for "
                f"{len(self._free)} more "
                f"of {self._num_slots}"
            )
        slots = {key: self._free.pop() for key in new}
        if new:
            self._hosted |= {key: Hosted(ExpertState.LOADING, slot) for key, slot in slots.items()}
            self._change()
        return slots

    def finish_loading(self, content_hashes: dict[ExpertKey, bytes]) -> None:
        """Make loading experts ready, all at once."""
        for key, content_hash in content_hashes.items():
            self._hosted[key] = replace(
                self._hosted[key], state=ExpertState.READY, content_hash=content_hash
            )
        if content_hashes:
            self._change()

    def hold(self, keys: Iterable[ExpertKey], operation: str, until: float) -> None:
        """Keep experts that are hosted from being retired by another operation until then, by the
        monotonic clock.
        """
        self._holds.put((key for key in keys if key in self._hosted), operation, until)

    def begin_retiring(
        self, keys: Iterable[ExpertKey], expected_generation: int, operation: str = ""
    ) -> list[ExpertKey]:
        """Mark those of the experts that are ready as retiring, and say which they are.

        Raises Outdated as `begin_loading` does, and when an operation other than this one holds one
        of them.
        """
        self._expect(expected_generation)
        leaving = [key for key in dict.fromkeys(keys) if key in self._hosted]
        for key in leaving:
            if self._hosted[key].state is ExpertState.LOADING:
                raise Outdated(f"expert {key.expert} of layer {key.layer} is loading")
        ready = [key for key in leaving if self._hosted[key].state is ExpertState.READY]
        for key in ready:
            self._holds.check(key, operation)
        for key in ready:
            self._hosted[key] = replace(self._hosted[key], state=ExpertState.RETIRING)
        if ready:
            self._change()
        return ready

    def remove(self, keys: Iterable[ExpertKey]) -> list[int]:
        """Take experts out, retired ones, or loading ones whose load failed; their slots, which are
        free.
        """
        gone = list(keys)
        slots = [self._hosted.pop(key).slot for key in gone]
        self._free += reversed(slots)
        self._holds.forget(gone)
        if gone:
            self._change()
        return slots

    def snapshot(self) -> HostingSnapshot:
        """The hosting as it is now."""
        experts = tuple(sorted(self._hosted.items(), key=_by_key))
        return HostingSnapshot(self._generation, experts, self.num_free, self._is_draining)

    async def watch(self) -> AsyncGenerator[HostingSnapshot, None]:
        """The hosting as it is, then again after changes; who is slow gets the newest and misses
        those between.

        Ends, after the last change, when the hosting is closed.
        """
        seen = None
        self._num_watchers += 1
        try:
            while not (self._is_closed and self._generation == seen):
                if self._generation == seen:
                    await self._changed.wait()
                else:
                    seen = self._generation
                    yield self.snapshot()
        finally:
            self._num_watchers -= 1
            self._changed.send()

    def drain(self) -> None:
        """Take no more experts, and let all who watch know that these are to be hosted
        elsewhere.
        """
        self._is_draining = True
        self._change()

    async def wait_until_evacuated(self) -> None:
        """Return as soon as no expert is hosted any more, or nobody watches who would
        see to that.
        """
        while self._hosted and self._num_watchers:
            await self._changed.wait()

    def close(self) -> None:
        """End all watches: the service is going."""
        self._is_closed = True
        self._changed.send()

    def _expect(self, generation: int) -> None:
        if generation != self._generation:
            raise Outdated(
                f"expected_generation is {generation}; the hosting's is {self._generation}"
            )

    def _change(self) -> None:
        self._generation += 1
        self._changed.send()


def _by_key(entry: tuple[ExpertKey, Hosted]) -> ExpertKey:
    return entry[0]
