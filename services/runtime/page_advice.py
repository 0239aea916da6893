"""What the kernel is told of a large piece of memory: that what it holds is needed no more."""

import ctypes
import mmap
import sys

MADV_DONTNEED = 4  # from <sys/mman.h>


def give_back(address: int, num_bytes: int) -> bool:
    """Give the pages that lie in it wholly back to the system; they are zero when they are used
    next. Whether that was done.
    """
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if not sys.platform.startswith("linux") or end <= begin:
        return False
    madvise = ctypes.CDLL(None).madvise
    return bool(madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED) == 0)
