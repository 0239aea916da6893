"""The standard streams of a process, whatever state it was started in."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

FAILED_EXIT = 1
BROKEN_PIPE_EXIT = 128 + 13  # as a shell says it of a process that SIGPIPE ended
STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
STDERR = 2
# What writing fails with where nothing is wrong but the place: it is full, or the terminal or the
# reader is gone.
LOST = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE})


def prepare_streams() -> None:
    """Have stdin, stdout and stderr be there and take any text; a second call changes nothing.

    A closed one reads as empty, and what is written to it goes nowhere. Left closed, its number
    would be given to the next file or pipe, and what is printed would go there. Writing to stderr
    never fails: a cluster does not end because the reader of its reports did.
    """
    for descriptor, (name, mode) in enumerate(STREAMS):
        _open_if_closed(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, _standard(descriptor, mode))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(
            errors="replace"
        )  # a terminal that lacks a character is no reason to fail
    stderr = sys.stderr
    if (
        isinstance(stderr, io.TextIOWrapper) and stderr is sys.__stderr__
    ):  # not where somebody captures it
        unfailing = io.BufferedWriter(_Unfailing(STDERR, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(
            unfailing, stderr.encoding, "backslashreplace", line_buffering=True
        )


@contextmanager
def standard_streams(prog: str) -> Iterator[None]:
    """Prepare the streams, and flush stdout when the block ends.

    Raises SystemExit where stdout cannot be written, with the exit code of `give_up_output`.
    """
    prepare_streams()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if not is_lost_output(error):
            raise
        raise SystemExit(give_up_output(prog, error)) from error


def is_lost_output(error: BaseException) -> bool:
    """Whether this is how writing to an open stream fails where nobody reads it or nothing has
    room.
    """
    return isinstance(error, OSError) and error.errno in LOST and error.filename is None


def give_up_output(prog: str, error: BaseException) -> int:
    """Write no more to stdout, and say why unless its reader has left; the exit code."""
    with suppress(OSError):
        sys.stdout.flush()
    # Python flushes it once more as it exits, and would complain a second time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE_EXIT
    reason = error.strerror if isinstance(error, OSError) else error
    print(f"{prog}: the output cannot be written: {reason}", file=sys.stderr)
    return FAILED_EXIT


def _standard(descriptor: int, mode: str) -> io.TextIOWrapper:
    return open(descriptor, mode, errors="replace", closefd=False)  # type: ignore[return-value]


class _Unfailing(io.FileIO):
    """A file that takes what is written whether or not anybody gets it."""

    def write(self, content: Any) -> int:
        with suppress(OSError):
            return super().write(content) or len(
                content
            )  # nothing is told of a full pipe that does not block
        return len(content)


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere == descriptor:
            os.set_inheritable(nowhere, True)
            return
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
