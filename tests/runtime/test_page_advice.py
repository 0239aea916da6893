"""Pages that are taken are there, those given back are the system's again, and what stands beside
them stays.
"""

import ctypes
import mmap
import sys

import pytest

from services.runtime.page_advice import PART_BYTES, PageTaker, give_back, make_huge

PAGES = 8
HUGE_BYTES = 4 << 20

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="madvise is Linux's")


@pytest.fixture
def memory() -> ctypes.Array[ctypes.c_char]:
    """Some pages of a mapping, each byte set."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mapping = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=flags)
    mapping.write(b"x" * len(mapping))
    return (ctypes.c_char * len(mapping)).from_buffer(mapping)


def test_pages_that_lie_in_it_wholly_are_zero_and_the_rest_is_as_it_was(
    memory: ctypes.Array[ctypes.c_char],
) -> None:
    assert give_back(ctypes.addressof(memory) + 1, 3 * mmap.PAGESIZE)
    assert memory.raw[: mmap.PAGESIZE] == b"x" * mmap.PAGESIZE
    assert memory.raw[mmap.PAGESIZE : 3 * mmap.PAGESIZE] == bytes(2 * mmap.PAGESIZE)
    assert memory.raw[3 * mmap.PAGESIZE :] == b"x" * (PAGES - 3) * mmap.PAGESIZE


def test_less_than_a_page_is_left_alone(memory: ctypes.Array[ctypes.c_char]) -> None:
    assert not give_back(ctypes.addressof(memory) + 1, mmap.PAGESIZE)
    assert memory.raw == b"x" * len(memory)


def test_pages_are_there_before_they_are_written_to_and_hold_what_they_held() -> None:
    pages = PageTaker()
    for _ in range(4):  # small pages and huge ones in turn
        mapping = mmap.mmap(-1, HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory = (ctypes.c_char * len(mapping)).from_buffer(mapping)
        memory[0] = b"x"
        assert pages.take(ctypes.addressof(memory), HUGE_BYTES // 2)
        assert memory.raw == b"x" + bytes(HUGE_BYTES - 1)
        assert all(are_there(mapping)[: HUGE_BYTES // 2 // mmap.PAGESIZE])


def test_memory_that_is_moved_into_huge_pages_holds_what_it_held() -> None:
    mapping = mmap.mmap(-1, HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    written = bytes(range(1, 256)) * (HUGE_BYTES // 255) + b"x" * (HUGE_BYTES % 255)
    mapping.write(written)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    assert make_huge(address + 1, HUGE_BYTES // 2, lambda: True)
    assert mapping[:] == written


def test_moving_into_huge_pages_ends_when_it_is_not_wanted_any_more(
    memory: ctypes.Array[ctypes.c_char],
) -> None:
    wanted = iter([True, False])
    assert not make_huge(ctypes.addressof(memory), 3 * PART_BYTES, lambda: next(wanted))
    assert next(wanted, None) is None
    assert memory.raw == b"x" * len(memory)


def are_there(mapping: mmap.mmap) -> list[bool]:
    """Whether each page of a mapping has memory."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(address // mmap.PAGESIZE * 8)
        entries = memoryview(file.read(len(mapping) // mmap.PAGESIZE * 8)).cast("Q")
    return [bool(entry >> 63) for entry in entries]
