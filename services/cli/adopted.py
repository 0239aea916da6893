"""A child that another process had for this one. Linux only."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

# From <linux/prctl.h>: whether processes below this one become its children when their parents end.
PR_SET_CHILD_SUBREAPER = 36
# What is told of a child whose end somebody else was told of.
UNKNOWN_EXIT = 255


class Adopted:
    """A child by its number, with what `asyncio.subprocess.Process` has for one of its own."""

    def __init__(self, pid: int) -> None:
        """Raises OSError where there is no such process, or the system has no descriptors of
        processes.
        """
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(pid)
        self._loop.add_reader(self._descriptor, self._end)

    async def wait(self) -> int:
        """The exit code, once the process has ended; negative for a signal."""
        await self._ended.wait()
        assert self.returncode is not None, "it has ended"
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def _end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        try:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            self.returncode = UNKNOWN_EXIT
        self._ended.set()


_num_adopting = 0


@contextmanager
def adopting() -> Iterator[None]:
    """While the block runs, grandchildren whose parents end become children of this process."""
    global _num_adopting
    _be_subreaper(True)
    _num_adopting += 1
    try:
        yield
    finally:
        _num_adopting -= 1
        if not _num_adopting:
            _be_subreaper(False)


def _be_subreaper(is_one: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(is_one), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no processes can be adopted")
