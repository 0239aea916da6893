"""TLS of the HTTP port, by the files that gRPC's has, read again when they change."""

import ssl

from services.runtime.read_again import ReadAgain
from services.runtime.tls_files import TlsFiles


def server_context(files: TlsFiles, *, needs_certificate: bool) -> ssl.SSLContext:
    """For a listening socket. Where it `needs_certificate`, those alone are served who have one of
    the authority.

    Files that have changed are read at the next connection. Raises BadState where they cannot be
    used now.
    """

    def read() -> ssl.SSLContext:
        files.read()  # says what is wrong with them
        return _context(files, needs_certificate=needs_certificate)

    kept = ReadAgain(files.paths, read)

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        current = kept.current()
        if current is not context:
            connection.context = current

    first = kept.current()
    first.sni_callback = choose
    return first


def _context(files: TlsFiles, *, needs_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.authority)
    context.load_cert_chain(files.certificate, files.key, password="")
    context.verify_mode = ssl.CERT_REQUIRED if needs_certificate else ssl.CERT_NONE
    return context
