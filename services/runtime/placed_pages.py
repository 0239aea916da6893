"""Pages that are put where others are: a file's, as the system's page cache has them, or memory of
their own. Whoever reads there meanwhile sees either; nobody sees neither.
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from services.runtime.page_advice import MADV_POPULATE_READ, advise

# Whether pages can be put in the place of others here.
AVAILABLE = sys.platform.startswith("linux")
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2  # from <sys/mman.h>
MAP_NORESERVE = 0x4000
FAILED = ctypes.c_void_p(-1).value


def reserve(num_bytes: int) -> mmap.mmap:
    """Addresses for so many bytes, which take memory when they are written to."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return mmap.mmap(-1, num_bytes, flags=flags)


def place_file(address: int, num_bytes: int, file: int, offset: int) -> bool:
    """Have an open file's pages from `offset` on at `address`, whole ones, to be read alone; they
    stay in memory. Whether that was done.
    """
    with suppress(OSError):  # it is advice
        os.posix_fadvise(file, offset, num_bytes, os.POSIX_FADV_WILLNEED)
    pages = _map(num_bytes, mmap.PROT_READ, mmap.MAP_SHARED, file, offset)
    if pages is None:
        return False
    # What cannot be read is an error of the first, where touching it would end the process.
    is_there = advise(pages, num_bytes, MADV_POPULATE_READ) and _lock(pages, num_bytes)
    if not is_there or not _move(pages, address, num_bytes):
        _unmap(pages, num_bytes)
        return False
    return True


def place_memory(address: int, num_bytes: int, fill: Callable[[int], None] | None = None) -> None:
    """Have memory of its own at `address`, in whole pages; `fill` is called with where it is
    before, and fills it.

    Raises MemoryError, or what `fill` raises; all is as it was then.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    pages = _map(num_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if pages is None:
        raise MemoryError(f"{num_bytes} bytes cannot be had")
    try:
        if fill is not None:
            fill(pages)
        if not _move(pages, address, num_bytes):
            raise MemoryError(f"{num_bytes} bytes cannot be put in place")
    except BaseException:
        _unmap(pages, num_bytes)
        raise


def _map(num_bytes: int, protection: int, flags: int, file: int, offset: int) -> int | None:
    call = ctypes.CDLL(None).mmap
    call.restype = ctypes.c_void_p
    address: int | None = call(
        None,
        ctypes.c_size_t(num_bytes),
        protection,
        flags,
        file,
        ctypes.c_int64(offset),
    )
    return None if address == FAILED else address


def _move(pages: int, address: int, num_bytes: int) -> bool:
    call = ctypes.CDLL(None).mremap
    call.restype = ctypes.c_void_p
    size = ctypes.c_size_t(num_bytes)
    flags = MREMAP_MAYMOVE | MREMAP_FIXED
    moved = call(ctypes.c_void_p(pages), size, size, flags, ctypes.c_void_p(address))
    return bool(moved == address)


def _lock(address: int, num_bytes: int) -> bool:
    lock = ctypes.CDLL(None).mlock
    return bool(lock(ctypes.c_void_p(address), ctypes.c_size_t(num_bytes)) == 0)


def _unmap(address: int, num_bytes: int) -> None:
    ctypes.CDLL(None).munmap(ctypes.c_void_p(address), ctypes.c_size_t(num_bytes))
