"""Where the output of a local cluster's processes goes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def output_to(log: Path | None) -> Iterator[int]:
    """The descriptor of what a process writes to: the file's, or without one stderr's."""
    if log is None:
        yield sys.stderr.fileno()
        return
    # A cluster may run for longer than a temporary folder is let be.
    log.parent.mkdir(exist_ok=True)
    with open(log, "ab") as file:
        yield file.fileno()
