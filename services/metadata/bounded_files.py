"""Reads a checkpoint's files whose size nobody else bounds: what reads as a file may be endless, or
never begin.
"""

import stat
from pathlib import Path

from services.metadata.refusals import UnusableModel


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """What is in the file. Raises OSError, and UnusableModel where it is a device or a pipe, or has
    more than so many bytes.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a directory says itself that it is one
        raise UnusableModel(f"{path} is no file")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise UnusableModel(f"{path} has more than {_amount(max_bytes)}")
    return content


def _amount(num_bytes: int) -> str:
    return f"{num_bytes >> 20} MiB" if num_bytes >= 1 << 20 else f"{num_bytes >> 10} KiB"
