"""How a process learns that its parent has died, however that died; Linux only."""

import ctypes
import os
import signal
import sys

# From <linux/prctl.h>: the signal this process gets when its parent dies.
PR_SET_PDEATHSIG = 1


def signal_at_death_of(parent_pid: int, number: signal.Signals) -> None:
    """Have this process get a signal when its parent dies; at once when it has died already."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent_pid:  # it died before the kernel was asked
        os.kill(os.getpid(), number)
