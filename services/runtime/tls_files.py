"""The files that make a process one of a cluster with TLS: its certificate, its key, and the
authority whose certificates it trusts; read again when they change.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from services.runtime.read_again import ReadAgain
from services.wire.errors import BadState


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

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """All of them."""
        return self.certificate, self.key, self.authority


class TlsReader:
    """Reads the files again when they have changed; may be asked by any thread.

    Raises BadState when what they hold at first cannot be used. Later the former material stays
    until the files are whole again, and a line of the log says so.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._kept = ReadAgain(files.paths, files.read)

    def material(self) -> TlsMaterial:
        """What the files hold now, or held last when they could be used."""
        return self._kept.current()


@dataclass(frozen=True)
class Authority:
    """Whom a client trusts that has no certificate of its own, and shows a token."""

    authority: Path

    def read(self) -> bytes:
        """The certificates in PEM. Raises BadState where there are none."""
        try:
            ssl.create_default_context(cafile=self.authority)
            return self.authority.read_bytes()
        except OSError as error:
            raise BadState(f"TLS cannot use {self.authority}: {error.strerror or error}") from error
