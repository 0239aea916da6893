"""What the kernel is told of a large piece of memory: that all of it is needed now, or no more."""

import ctypes
import mmap
import sys
from functools import cache
from pathlib import Path

MADV_DONTNEED = 4  # from <sys/mman.h>
MADV_HUGEPAGE = 14
MADV_POPULATE_WRITE = 23

FREE_BLOCKS = Path("/proc/buddyinfo")
HUGE_PAGE_BYTES = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
# Several threads take pages at once, and the system needs some for itself: so many times what is
# asked for has to be free in huge pages.
HUGE_MARGIN = 16


def take(address: int, num_bytes: int) -> bool:
    """Have the pages that lie in it wholly before they are written to, what they hold stays;
    whether that was done.

    Pages that are taken one by one cost more time than reading a file into them. Huge ones are
    taken where enough are free: where memory is in pieces the system would make whole ones first,
    which takes longer than all else.
    """
    if is_free_in_huge_pages(HUGE_MARGIN * num_bytes):
        _advise(address, num_bytes, MADV_HUGEPAGE)
    return _advise(address, num_bytes, MADV_POPULATE_WRITE)


def give_back(address: int, num_bytes: int) -> bool:
    """Give the pages that lie in it wholly back to the system; they are zero when they are used
    next. Whether that was done.
    """
    return _advise(address, num_bytes, MADV_DONTNEED)


def is_free_in_huge_pages(num_bytes: int, free_blocks: Path = FREE_BLOCKS) -> bool:
    """Whether the system has as much free memory as that in pieces of at least a huge page."""
    huge_page_bytes = _huge_page_bytes()
    if huge_page_bytes is None:
        return False
    try:
        zones = [line.split("zone")[1].split()[1:] for line in free_blocks.read_text().splitlines()]
        free = sum(
            int(count) * size
            for zone in zones
            for order, count in enumerate(zone)
            if (size := mmap.PAGESIZE << order) >= huge_page_bytes
        )
    except (OSError, IndexError, ValueError):
        return False
    return free >= max(num_bytes, huge_page_bytes)


@cache
def _huge_page_bytes() -> int | None:
    try:
        return int(HUGE_PAGE_BYTES.read_text())
    except (OSError, ValueError):
        return None


def _advise(address: int, num_bytes: int, advice: int) -> bool:
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if not sys.platform.startswith("linux") or end <= begin:
        return False
    madvise = ctypes.CDLL(None).madvise
    return bool(madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice) == 0)
