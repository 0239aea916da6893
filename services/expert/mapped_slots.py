"""Slots whose weights are pages of the checkpoint's files: they are put in the slot's place rather
than read, and become memory of the slot's own as soon as somebody wants to write to the file.
"""

import ctypes
import mmap
import threading
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from services.model.placed_expert import PlacedExpert
from services.model.refusals import UnusableModel
from services.model.tensor_file import FilePlace, TensorFile
from services.runtime.file_lease import give_up_lease, granted_seconds, is_held, take_lease
from services.runtime.page_advice import PageTaker
from services.runtime.placed_pages import place_file, place_memory

PAGE_BYTES = mmap.PAGESIZE
# At least so fast are weights copied while somebody waits to write to their file, and they have
# that share of the time for which the system lets them wait.
COPIED_BYTES_A_SECOND = 512 << 20
USED_SHARE = 0.75
# The system lets a process have some 65,000 pieces of memory, of which a slot takes four.
MOST_MAPPED = 10_000


def most_mapped_bytes() -> float:
    """What can be copied while somebody who wants to write to a file is kept waiting."""
    return granted_seconds() * USED_SHARE * COPIED_BYTES_A_SECOND


class MappedSlots:
    """Which slots of `parameters` have the files' own pages. Safe to use from several threads; a
    slot is mapped or cleared by one at a time.

    A slot begins with a page and ends with room for another, since weights begin anywhere in a
    page: `shifts` [slots, parameters] says how far into it. Files are leased as long as a slot has
    pages of theirs.
    """

    def __init__(
        self, parameters: Mapping[str, torch.Tensor], most_bytes: float | None = None
    ) -> None:
        self._parameters = parameters
        self._most_bytes = most_mapped_bytes() if most_bytes is None else most_bytes
        self._num_bytes = 0
        self._placed: dict[int, PlacedExpert] = {}
        self._num_slots_of = Counter[TensorFile]()
        self._pages = PageTaker()
        self._lock = threading.Lock()
        num_slots = len(next(iter(parameters.values())))
        self.shifts = np.zeros((num_slots, len(parameters)), np.int64)

    @property
    def num_mapped(self) -> int:
        """Slots that have a file's pages now."""
        return len(self._placed)

    def map(self, slot: int, placed: PlacedExpert) -> bool:
        """Have an expert in a slot that is clear; whether that was done. If not, the slot is clear
        as before, and the expert is to be read into it.
        """
        with self._lock:
            is_possible = self._has_room_for(placed) and _have_leases(placed)
        if is_possible:
            self._shift(slot, placed)
            if self._place(slot, placed) and self._note(slot, placed):
                return True
            self._empty(slot)
        with self._lock:
            self._give_up_unused(placed)
        return False

    def clear(self, slot: int) -> None:
        """Give back what a slot has, whatever that is; it is zero then, and can be read into."""
        with self._lock:
            self._forget(slot)
        self._empty(slot)

    def wanted_files(self) -> Sequence[TensorFile]:
        """Those that somebody wants to write to, and waits until no slot has their pages."""
        with self._lock:
            return [file for file in self._num_slots_of if not is_held(file.descriptor)]

    def vacate(self, file: TensorFile) -> None:
        """Let a file be written to: slots that have pages of it get copies. Who computes with them
        does not notice.

        Raises UnusableModel when it was written to already, and MemoryError: what slots have is not
        what was loaded then.
        """
        for slot in [slot for slot, placed in list(self._placed.items()) if file in placed.files]:
            self.leave_file(slot)

    def leave_file(self, slot: int) -> None:
        """Let a slot that has a file's pages have a copy of its own instead; raises as `vacate`."""
        with self._lock:
            placed = self._placed.get(slot)
            if placed is not None:
                self._copy(slot, placed)
                self._forget(slot)

    def _has_room_for(self, placed: PlacedExpert) -> bool:
        num_bytes = self._num_bytes + placed.num_bytes
        return num_bytes <= self._most_bytes and len(self._placed) < MOST_MAPPED

    def _place(self, slot: int, placed: PlacedExpert) -> bool:
        for name, place in placed.places.items():
            where = self._address(slot, name), _size(place)
            if not place_file(*where, place.file.descriptor, _first(place)):
                self._most_bytes = 0  # as where so much cannot be locked: there is no more to try
                return False
        return True

    def _note(self, slot: int, placed: PlacedExpert) -> bool:
        """Take down that a slot is mapped, unless a file was to be written to meanwhile."""
        with self._lock:
            if not _are_leased(placed):
                return False
            self._placed[slot] = placed
            self._num_bytes += placed.num_bytes
            self._num_slots_of.update(placed.files)
            return True

    def _forget(self, slot: int) -> None:
        placed = self._placed.pop(slot, None)
        if placed is None:
            return
        self._num_bytes -= placed.num_bytes
        self._num_slots_of.subtract(placed.files)
        self._give_up_unused(placed)

    def _give_up_unused(self, placed: PlacedExpert) -> None:
        for file in placed.files:
            if not self._num_slots_of[file]:
                del self._num_slots_of[file]
                give_up_lease(file.descriptor)

    def _copy(self, slot: int, placed: PlacedExpert) -> None:
        for name, place in placed.places.items():
            size = _size(place)

            def fill(address: int, place: FilePlace = place, size: int = size) -> None:
                self._pages.take(address, size)
                memory = (ctypes.c_char * size).from_address(address)
                shift, length = place.begin % PAGE_BYTES, place.end - place.begin
                place.file.read_at(place.begin, memoryview(memory).cast("B")[shift:][:length])

            place_memory(self._address(slot, name), size, fill)

    def _empty(self, slot: int) -> None:
        for name, parameter in self._parameters.items():
            num_bytes = parameter[slot].nbytes + PAGE_BYTES
            place_memory(self._address(slot, name), -(-num_bytes // PAGE_BYTES) * PAGE_BYTES)
        self.shifts[slot] = 0

    def _shift(self, slot: int, placed: PlacedExpert) -> None:
        for column, name in enumerate(self._parameters):
            self.shifts[slot, column] = placed.places[name].begin % PAGE_BYTES

    def _address(self, slot: int, name: str) -> int:
        return self._parameters[name][slot].data_ptr()


def _have_leases(placed: PlacedExpert) -> bool:
    """Have its files stay what they were when they were opened, until somebody wants to write to
    them; whether that is so.
    """
    for file in placed.files:
        if not is_held(file.descriptor):
            take_lease(file.descriptor)
    return _are_leased(placed)


def _are_leased(placed: PlacedExpert) -> bool:
    try:
        for file in placed.files:
            file.check_unchanged()
    except UnusableModel:  # who reads the expert next says so
        return False
    return all(is_held(file.descriptor) for file in placed.files)


def _first(place: FilePlace) -> int:
    return place.begin // PAGE_BYTES * PAGE_BYTES


def _size(place: FilePlace) -> int:
    """Of the pages that it stands in."""
    return -(-place.end // PAGE_BYTES) * PAGE_BYTES - _first(place)
