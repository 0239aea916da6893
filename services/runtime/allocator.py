"""How the process keeps memory that it has freed, for messages that come and go at every layer."""

import ctypes
import sys

# From <malloc.h>: the names of what mallopt sets.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
MEBIBYTE = 1 << 20
# Blocks below this come from the heap rather than from a mapping of their own; glibc allows no
# more.
MAX_HEAP_BLOCK_BYTES = 32 * MEBIBYTE
# So much may lie unused at the heap's end before it is given back to the system, and so much more
# is asked for at once.
KEPT_BYTES = 256 * MEBIBYTE
ASKED_FOR_BYTES = 64 * MEBIBYTE
# Heaps of the process. By default each thread may have one, which keeps what the thread once used.
NUM_HEAPS = 2


def keep_freed_memory() -> bool:
    """Keep freed memory for the next message instead of giving it back at once; whether the C
    library can.

    By default glibc maps every block above 128 KiB anew, and the kernel clears its pages: that
    costs more than sending the message (docs/performance.md). At most KEPT_BYTES lie unused. Does
    nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(name, value) == 1
        for name, value in (
            (M_MMAP_THRESHOLD, MAX_HEAP_BLOCK_BYTES),
            (M_TRIM_THRESHOLD, KEPT_BYTES),
            (M_TOP_PAD, ASKED_FOR_BYTES),
            (M_ARENA_MAX, NUM_HEAPS),
        )
    )
