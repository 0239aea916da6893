"""What the kernel tells of processes and memory, and on which cores it runs them; Linux only."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

FIELD = re.compile(r"^(\w+):[ \t]+(\d+) kB$", re.MULTILINE)
RESIDENT_FIELD = 1  # of /proc/PID/statm, in pages
PAGE_BYTES = 4096


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[RESIDENT_FIELD]) * PAGE_BYTES


def fields_of(text: str) -> Mapping[str, int]:
    """The fields of a file of /proc that has their names and kibibytes, in bytes."""
    return {name: int(kibibytes) * 1024 for name, kibibytes in FIELD.findall(text)}


def keep_on(core: int | None, pids: Iterable[int], usable: set[int]) -> None:
    """Have all threads of these processes run on the core, or on any of the usable ones."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), usable if core is None else {core})
