"""The files of a process as TLS of the native wire takes them."""

from dataclasses import dataclass

from services.runtime.read_again import ReadAgain
from services.runtime.tls_files import TlsFiles, TlsMaterial
from services.wire import tls
from services.wire.errors import BadState

AVAILABLE = tls.AVAILABLE


@dataclass(frozen=True)
class ClientTls:
    """What a client does by; the server's certificate has to be for `host`."""

    context: "tls.Context"
    host: str


def client_tls(files: TlsFiles, host: str) -> ClientTls:
    """What the files hold now, for any number of connections. Raises BadState where they cannot be
    used.
    """
    material = files.read()
    return ClientTls(_context(material, is_server=False, authority=material.authority), host)


class ServerTls:
    """What a server does by, as the files hold it. Where it `needs_certificate`, those alone are
    served who have one of the authority. The files are looked at once in `look_seconds` at most.
    Raises BadState where they cannot be used.
    """

    def __init__(
        self, files: TlsFiles, *, needs_certificate: bool, look_seconds: float = 0.0
    ) -> None:
        self._files = files
        self._needs_certificate = needs_certificate
        self._kept = ReadAgain(files.paths, self._read, look_seconds=look_seconds)

    def context(self) -> "tls.Context":
        """For the next connection; another one once the files have changed."""
        return self._kept.current()

    def _read(self) -> "tls.Context":
        material = self._files.read()
        authority = material.authority if self._needs_certificate else None
        return _context(material, is_server=True, authority=authority)


def _context(material: TlsMaterial, *, is_server: bool, authority: bytes | None) -> "tls.Context":
    try:
        return tls.Context(is_server, material.certificate, material.key, authority)
    except ValueError as error:
        raise BadState(f"TLS cannot be had: {error}") from error
