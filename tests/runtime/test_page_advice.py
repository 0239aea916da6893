"""Pages that are given back are the system's again, and what stands beside them stays."""

import ctypes
import mmap
import sys

import pytest

from services.runtime.page_advice import give_back

PAGES = 8

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
