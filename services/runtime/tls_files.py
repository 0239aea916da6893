"""The files that make a process one of a cluster with TLS: its certificate, its key, and the
authority whose certificates it trusts; read again when they change.
"""

import logging
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from services.wire.errors import BadState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TlsMaterial:
    """What the files held when they were read, each in PEM."""

    certificate: bytes
    key: bytes
    authority: bytes


@dataclass(frozen=True)
class TlsFiles:
    """Where the files are. Whoever replaces them may do so one by one."""

    certificate: Path
    key: Path
    authority: Path

    def read(self) -> TlsMaterial:
        """Raises BadState where one cannot be read or is no such thing, and where certificate and
        key are not of one pair.
        """
        try:
            material = TlsMaterial(
                self.certificate.read_bytes(), self.key.read_bytes(), self.authority.read_bytes()
            )
            context = ssl.create_default_context(cafile=self.authority)
            # Without a password a terminal would be asked for one.
            context.load_cert_chain(self.certificate, self.key, password="")
        except OSError as error:  # which ssl.SSLError is, too
            which = f"{self.certificate}, {self.key} and {self.authority}"
            raise BadState(f"TLS cannot use {which}: {error.strerror or error}") from error
        return material

    def stamp(self) -> object:
        """Another one after a file was changed or replaced; equal else."""
        return tuple(_stamp(file) for file in (self.certificate, self.key, self.authority))


class TlsReader:
    """Reads the files again when they have changed; may be asked by any thread.

    Raises BadState when what they hold at first cannot be used. Later the former material stays
    until the files are whole again, and a line of the log says so.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stamp = files.stamp()
        self._material = files.read()

    def material(self) -> TlsMaterial:
        """What the files hold now, or held last when they could be used."""
        with self._lock:
            stamp = self._files.stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again(stamp)
            return self._material

    def _read_again(self, stamp: object) -> None:
        try:
            material = self._files.read()
        except BadState as error:
            logger.warning("the former certificate stays in use: %s", error)
            return
        if self._files.stamp() == stamp:  # else some of it is older than the rest
            self._material = material
            logger.info("read the certificate in %s", self._files.certificate)
        else:
            self._stamp = None


def _stamp(file: Path) -> object:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
