"""What was read of a file is given up where memory is short: of all that the system keeps of files
it is needed least, since it stands in memory of its own now.
"""

import os
import re
from pathlib import Path

MEMORY = Path("/proc/meminfo")
# Free of all memory: below that the system looks for what it can take back. It takes what was not
# used for longest, which is what is read next where a checkpoint has been read before.
SCARCE_SHARE = 0.05


def give_up_read(file: int, begin: int, end: int, memory: Path = MEMORY) -> bool:
    """Tell the system that these bytes of an open file are not needed any more, if memory is short;
    whether that was done.
    """
    if not hasattr(os, "posix_fadvise") or not _is_scarce(memory):
        return False
    try:
        os.posix_fadvise(file, begin, end - begin, os.POSIX_FADV_DONTNEED)
    except OSError:  # it was advice, and what was read is right without
        return False
    return True


def _is_scarce(memory: Path) -> bool:
    try:
        text = memory.read_text(encoding="ascii")
    except OSError:  # another system's
        return False
    found = {name: int(value) for name, value in re.findall(r"(MemTotal|MemFree): +(\d+)", text)}
    return len(found) == 2 and found["MemFree"] < SCARCE_SHARE * found["MemTotal"]
