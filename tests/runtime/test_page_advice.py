"""Pages that are taken are there, those given back are the system's again, and what stands beside
them stays.
"""

import ctypes
import mmap
import sys
from pathlib import Path

import pytest

from services.runtime.page_advice import give_back, is_free_in_huge_pages, take

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


def test_pages_are_there_before_they_are_written_to_and_hold_what_they_held() -> None:
    mapping = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory = (ctypes.c_char * len(mapping)).from_buffer(mapping)
    memory[0] = b"x"
    assert take(ctypes.addressof(memory), 4 * mmap.PAGESIZE)
    assert memory.raw == b"x" + bytes(len(memory) - 1)
    assert are_there(mapping)[:4] == [True] * 4


def are_there(mapping: mmap.mmap) -> list[bool]:
    """Whether each page of a mapping has memory."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(address // mmap.PAGESIZE * 8)
        entries = memoryview(file.read(len(mapping) // mmap.PAGESIZE * 8)).cast("Q")
    return [bool(entry >> 63) for entry in entries]


@pytest.mark.parametrize(
    ("blocks", "is_free"),
    [
        ("Node 0, zone   Normal  900 900 900 900 900 900 900 900 900 1 1\n", True),
        ("Node 0, zone   Normal  900 900 900 900 900 900 900 900 900 2 0\n", False),
        (f"Node 0, zone DMA {'0 ' * 9}1 0\nNode 1, zone Normal {'0 ' * 9}0 1\n", True),
        ("what it is not\n", False),
    ],
)
@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="numbers of blocks are those of small pages")
def test_memory_in_small_pieces_does_not_count_as_free_for_huge_pages(
    tmp_path: Path, blocks: str, *, is_free: bool
) -> None:
    file = tmp_path / "buddyinfo"
    file.write_text(blocks)
    assert is_free_in_huge_pages(6 << 20, file) is is_free
    assert not is_free_in_huge_pages(6 << 20, tmp_path / "absent")
