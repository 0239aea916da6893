"""What was read from files, and is read from them again when they change."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from services.wire.errors import BadState

logger = logging.getLogger(__name__)

Read = TypeVar("Read")

# Until files are tried again that could not be used and look as they did then.
RETRY_SECONDS = 1.0


class ReadAgain(Generic[Read]):
    """Whatever `read` makes of the files; may be asked by any thread, which look at the files once
    in `look_seconds` together.

    Raises BadState where `read` does so at first. When it does later, what it made before stays
    until the files are whole again, and a line of the log says so.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[], Read],
        clock: Callable[[], float] = time.monotonic,
        *,
        look_seconds: float = 0.0,
    ) -> None:
        self._files = files
        self._read = read
        self._lock = threading.Lock()
        self._complaint = ""
        self._clock = clock
        self._refused: object = None  # the stamp of what could not be used
        self._retry_at = 0.0
        self._look_seconds = look_seconds
        self._look_at = clock() + look_seconds
        self._stamp = stamp_of(files)
        self._current = read()

    def current(self) -> Read:
        """What the files hold now, or held last when they could be used."""
        with self._lock:
            if (now := self._clock()) < self._look_at:
                return self._current
            self._look_at = now + self._look_seconds
            stamp = stamp_of(self._files)
            is_refused = stamp == self._refused and self._clock() < self._retry_at
            if stamp != self._stamp and not is_refused:
                self._take_new(stamp)
            return self._current

    def _take_new(self, stamp: object) -> None:
        """Until that can be done it is tried when somebody asks, and not for each who does."""
        try:
            read = self._read()
        except BadState as error:
            if str(error) != self._complaint:
                logger.warning("what was read before stays in use: %s", error)
            self._complaint = str(error)
            self._refused, self._retry_at = stamp, self._clock() + RETRY_SECONDS
            return
        if stamp_of(self._files) == stamp:  # else some of it is older than the rest
            self._current, self._stamp, self._complaint = read, stamp, ""
            logger.info("read %s again", self._files[0])


def stamp_of(files: Sequence[Path]) -> object:
    """Another one after a file was changed or replaced; equal else."""
    return tuple(map(_stamp, files))


def _stamp(file: Path) -> object:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
