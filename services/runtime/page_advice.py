"""What the kernel is told of a large piece of memory: that all of it is needed now, or no more."""

import ctypes
import mmap
import sys
import time
from collections.abc import Callable

MADV_DONTNEED = 4  # from <sys/mman.h>
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_POPULATE_READ = 22
MADV_POPULATE_WRITE = 23
MADV_COLLAPSE = 25

# A huge page's: so much at a time is taken in one kind, so that a trial of the slower is short.
PART_BYTES = 2 << 20
# By so much what is not used is believed to get faster with each use of the other, so that it is
# tried again.
FORGETTING = 0.98


class PageTaker:
    """Has all pages of pieces of memory before they are written to, in huge pages where these come
    faster. Safe to use from several threads.

    Pages that are taken one by one, when they are written to, cost more than reading a file into
    them. Huge ones come at once where there are some, but far slower than small ones where memory
    is in pieces, or where a virtual machine's host has to find them. Nobody can ask which it is, so
    both are tried.
    """

    def __init__(self) -> None:
        self._seconds_per_byte = {MADV_HUGEPAGE: 0.0, MADV_NOHUGEPAGE: 0.0}

    def take(self, address: int, num_bytes: int) -> bool:
        """Have the pages that lie wholly in it; what they hold stays. Whether some were had."""
        end, is_done = address + num_bytes, False
        while address < end:
            part_end = min(end, (address // PART_BYTES + 1) * PART_BYTES)
            is_done |= self._take_part(address, part_end - address)
            address = part_end
        return is_done

    def _take_part(self, address: int, num_bytes: int) -> bool:
        kinds = self._seconds_per_byte
        kind, other = sorted(kinds, key=lambda kind: kinds[kind])
        began = time.perf_counter()
        advise(address, num_bytes, kind)
        is_done = advise(address, num_bytes, MADV_POPULATE_WRITE)
        if num_bytes == PART_BYTES:  # of less none is huge, which says nothing of either
            kinds[kind] = (time.perf_counter() - began) / num_bytes
            kinds[other] *= FORGETTING
        return is_done


def give_back(address: int, num_bytes: int) -> bool:
    """Give the pages that lie in it wholly back to the system; they are zero when they are used
    next. Whether that was done.
    """
    return advise(address, num_bytes, MADV_DONTNEED)


def make_huge(address: int, num_bytes: int, is_wanted: Callable[[], bool]) -> bool:
    """Move the memory, with what else lies in the same huge pages, into such pages, as far as the
    system has some, until it is not wanted any more; whether all of it was tried.

    Where it has none now it may move the memory later by itself. What it holds stays, and may be
    read and written to meanwhile. Each page takes milliseconds, in which others who change the
    process's mappings wait. So it rests as long as it works; call it in a thread.
    """
    begin = address // PART_BYTES * PART_BYTES
    for part in range(begin, address + num_bytes, PART_BYTES):
        if not is_wanted():
            return False
        began = time.perf_counter()
        if advise(part, PART_BYTES, MADV_HUGEPAGE):
            advise(part, PART_BYTES, MADV_COLLAPSE)
        time.sleep(time.perf_counter() - began)
    return True


def advise(address: int, num_bytes: int, advice: int) -> bool:
    """Tell the system something of the pages that lie wholly in it; whether it did as told."""
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if not sys.platform.startswith("linux") or end <= begin:
        return False
    madvise = ctypes.CDLL(None).madvise
    return bool(madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice) == 0)
