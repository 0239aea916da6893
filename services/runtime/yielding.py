"""Threads that leave the processor, and the interpreter, to the event loop when it wants them."""

import os
import sys
import threading
from contextlib import suppress

# About half of what others get of a core that all want. With less, first tokens would wait where a
# machine is busy.
NICENESS = 3
# For how long a thread that computes in Python keeps the interpreter from one that wants it. By
# default it is five times as long, after each of the loop's waits.
SWITCH_SECONDS = 0.001


def yield_to_others() -> None:
    """Have the calling thread, and the processes that it starts, go behind others of this process
    from now on; on Linux, where threads have a niceness each.
    """
    if sys.platform.startswith("linux"):
        thread = threading.get_native_id()
        with suppress(OSError):  # a container may forbid it
            # The process may have been started with a niceness of its own.
            usual = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, usual + NICENESS)


def share_interpreter_quickly() -> None:
    """Have threads of this process hand the interpreter on sooner."""
    sys.setswitchinterval(SWITCH_SECONDS)
