"""Content hashes that were computed before, kept beside what they are hashes of: in a file for each
user, by origin.
"""

import hashlib
import logging
import os
import threading
from pathlib import Path

from services.model.digest import DIGEST_BYTES
from services.model.origin import KEY_BYTES, Origin

logger = logging.getLogger(__name__)

# A file that was changed this recently may be changed again within the same tick of its clock,
# which would not show.
SETTLED_NANOS = 2_000_000_000
CHECK_BYTES = 8
RECORD_BYTES = KEY_BYTES + DIGEST_BYTES + CHECK_BYTES
# Of the file, some hundred thousand hashes; it is begun anew then.
MAX_BYTES = 16 << 20


class HashCache:
    """Hashes by origin. Several processes may read the file and add to it at once; a record that is
    not whole is passed over.

    Whatever the file system says, hashes are found or not: nothing is raised. Safe to use from
    several threads.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[bytes, bytes] = {}
        self._num_read = 0  # bytes of the file
        self._lock = threading.Lock()

    @classmethod
    def at(cls, file: str) -> "HashCache | None":
        """The one in a file as a setting names it: none where that is `off`, or there is no home
        for it.
        """
        try:
            return None if file == "off" else cls(Path(file).expanduser())
        except RuntimeError:  # there is no home
            return None

    def find(self, origin: Origin) -> bytes | None:
        """The hash of what stands there, if it was computed by whatever process."""
        with self._lock:
            if origin.key not in self._known:
                self._read_on()
            return self._known.get(origin.key)

    def keep(self, origin: Origin, content_hash: bytes) -> None:
        """Remember a hash, unless the files had been changed a moment before they were read."""
        if origin.seen_nanos - origin.changed_nanos < SETTLED_NANOS:
            return
        record = origin.key + content_hash
        with self._lock:
            self._known[origin.key] = content_hash
            try:
                self._append(record + _check(record))
            except OSError as error:
                logger.debug("a hash is not kept in %s: %s", self._file, error)

    def _append(self, record: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._is_spoilt():
            self._file.unlink(missing_ok=True)
        # In one write, so that records of several processes do not mix.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, record)
        finally:
            os.close(descriptor)

    def _is_spoilt(self) -> bool:
        """Whether it is too large, or a record was cut short, as where the disk was full."""
        try:
            size = self._file.stat().st_size
        except FileNotFoundError:
            return False
        return size > MAX_BYTES or size % RECORD_BYTES != 0

    def _read_on(self) -> None:
        """Take in what was added since, by this process or another."""
        try:
            with open(self._file, "rb") as file:
                if file.seek(0, os.SEEK_END) < self._num_read:
                    self._num_read = 0  # it was begun anew
                file.seek(self._num_read)
                data = file.read()
        except OSError:
            return
        whole = len(data) - len(data) % RECORD_BYTES
        self._num_read += whole
        for begin in range(0, whole, RECORD_BYTES):
            record = data[begin : begin + KEY_BYTES + DIGEST_BYTES]
            if data[begin + len(record) : begin + RECORD_BYTES] == _check(record):
                self._known[record[:KEY_BYTES]] = record[KEY_BYTES:]


def _check(record: bytes) -> bytes:
    return hashlib.blake2b(record, digest_size=CHECK_BYTES).digest()
