"""What `ps` shows of a process that was forked and is another program now; Linux only."""

import ctypes
import os
from pathlib import Path

STAT = Path("/proc/self/stat")
# Counted from the field behind the name, which may have spaces of its own: see proc(5).
ARGUMENTS_BEGIN, ARGUMENTS_END = 48 - 3, 49 - 3


def set_title(title: str) -> None:
    """Write a title over the arguments that this process was started with, as far as these reach.

    The kernel takes arguments whose last byte is written over for one text.
    """
    fields = STAT.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    begin, end = int(fields[ARGUMENTS_BEGIN]), int(fields[ARGUMENTS_END])
    size = end - begin
    if size < 2:
        return
    text = os.fsencode(title)[: size - 2]  # paths of any bytes may be in it
    ctypes.memmove(begin, text.ljust(size - 1, b"\0") + b"\1", size)
