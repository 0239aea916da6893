"""Which process a number stands for: another one may have it since."""

import os
import socket
import sys
import time
from pathlib import Path

IS_LINUX = sys.platform.startswith("linux")
# Of the fields of /proc/PID/stat after the name: when it began, in ticks since the machine did.
STARTED, STATE = 19, 0


def this_machine() -> str:
    """Where numbers of processes mean the same: this host since it was started, and in it this
    container. The host's name comes first.
    """
    host = socket.gethostname()
    if not IS_LINUX:
        return host
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{host} {boot} {os.readlink('/proc/self/ns/pid')}"


def started_at(pid: int) -> int | None:
    """When the process began, in ticks since the machine did; 0 where the system does not say, and
    None where there is no such process.
    """
    if not IS_LINUX:
        return 0 if _is_there(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[STATE] == "Z" else int(fields[STARTED])


def is_living(machine: str, pid: int, started: int) -> bool:
    """Whether the process of then is still there, and here."""
    return machine == this_machine() and started_at(pid) == started


def is_over(machine: str, pid: int, started: int) -> bool:
    """Whether it certainly is no more: of another host, or in another container, nobody here can
    tell.
    """
    here = this_machine()
    if machine == here:
        return started_at(pid) != started
    return machine.split()[:1] == here.split()[:1] and machine.split()[1:2] != here.split()[1:2]


def seconds_since(ticks: int) -> float | None:
    """How long ago that was; None where it is not known."""
    if not IS_LINUX:
        return None
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, now - ticks / os.sysconf("SC_CLK_TCK"))


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
