"""Leases on open files: while one is held nobody writes to the file or cuts it short. Who wants to
waits until it is given up, or for the time that the system grants.
"""

import math
import os
import sys
from pathlib import Path

if sys.platform == "linux":
    import fcntl
    import signal

MOUNTS = Path("/proc/self/mountinfo")
GRANTED = Path("/proc/sys/fs/lease-break-time")
# File systems that no other machine writes to: of such a write no lease would tell.
LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs"})


def take_lease(file: int, mounts: Path = MOUNTS) -> bool:
    """Have an open file stay as it is, or wait for `is_wanted`; whether that is so.

    It is not for a file that is open for writing, of another user or of another machine, nor on
    other systems than Linux.
    """
    if sys.platform != "linux" or not _is_local(file, mounts):
        return False
    try:
        # A signal tells of the end, and the usual one ends the process. This one does nothing.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return is_held(file)


def is_held(file: int) -> bool:
    """Whether a lease was taken, and nobody waits for its end."""
    if sys.platform != "linux":
        return False
    return fcntl.fcntl(file, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def give_up_lease(file: int) -> None:
    """Let whoever waits go on."""
    if sys.platform == "linux":
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:  # it was taken away already
            return


def granted_seconds(granted: Path = GRANTED) -> float:
    """How long the system lets others wait for a lease's end, before it ends by itself."""
    try:
        return float(granted.read_text(encoding="ascii")) or math.inf
    except (OSError, ValueError):
        return 0.0


def _is_local(file: int, mounts: Path) -> bool:
    device = os.fstat(file).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        of_mount, _, of_system = line.partition(" - ")
        if of_mount.split()[2] == wanted:
            return of_system.split()[0] in LOCAL
    return False
