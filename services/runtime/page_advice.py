"""What the kernel is told of a large piece of memory: that it is better had in huge pages, or that
what it holds is needed no more.
"""

import ctypes
import mmap
import sys

# From <sys/mman.h>.
MADV_DONTNEED, MADV_HUGEPAGE = 4, 14


def have_huge_pages(address: int, num_bytes: int) -> bool:
    """Have memory that is not used yet in huge pages, where the system has any; whether it heeds
    that.

    They are cleared at once instead of in some hundred page faults each. What is never touched is
    not taken either way.
    """
    return _advise(address, num_bytes, MADV_HUGEPAGE)


def give_back(address: int, num_bytes: int) -> bool:
    """Give the pages that lie in it wholly back to the system; they are zero when they are used
    next. Whether that was done.
    """
    return _advise(address, num_bytes, MADV_DONTNEED)


def _advise(address: int, num_bytes: int, advice: int) -> bool:
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if not sys.platform.startswith("linux") or end <= begin:
        return False
    madvise = ctypes.CDLL(None).madvise
    return bool(madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice) == 0)
