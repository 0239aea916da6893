"""Folders for the logs of local clusters: the newest are kept of those where a service failed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.cli.child import ServiceFailed
from services.cli.life_of_processes import started_at
from services.cli.report import Report
from services.cli.running import cache_folder
from services.wire.errors import BadState

NUM_KEPT = 10
# Which part of a folder's name, by dashes, is the process that it is of.
PID = 4


@contextmanager
def log_folder(report: Report, verbose: bool) -> Iterator[Path | None]:
    """A folder for the processes' logs, kept only when one of them failed; none where the terminal
    shows them.
    """
    if verbose:
        yield None
        return
    folder = _new_folder()
    try:
        yield folder
    except BaseExceptionGroup as group:
        if group.subgroup(ServiceFailed) is not None:
            report.line(f"the services' logs are in {folder}")
            raise
        _remove(folder)
        raise
    except BaseException:
        _remove(folder)
        raise
    else:
        _remove(folder)


def _new_folder() -> Path:
    """In the user's cache; where nothing can be written there, among temporary files."""
    prefix = time.strftime(f"%Y-%m-%d-%H%M%S-{os.getpid()}-")
    try:
        logs = cache_folder() / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        _tidy(logs)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=logs))
    except OSError:
        pass
    try:
        return Path(tempfile.mkdtemp(prefix="moesaic-"))
    except OSError as error:
        raise BadState(
            f"no folder for logs can be made: {error.strerror}; --verbose shows them instead"
        ) from error


def _tidy(logs: Path) -> None:
    """Leave the newest of commands that have ended."""
    ended = [folder for folder in sorted(logs.iterdir()) if not _is_in_use(folder)]
    for folder in ended[: max(0, len(ended) - NUM_KEPT + 1)]:
        _remove(folder)


def _is_in_use(folder: Path) -> bool:
    parts = folder.name.split("-")
    pid = parts[PID] if len(parts) > PID else ""
    return pid.isdecimal() and started_at(int(pid)) is not None


def _remove(folder: Path) -> None:
    # Whoever tidies such folders may have been there before.
    shutil.rmtree(folder, ignore_errors=True)
