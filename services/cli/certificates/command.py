"""`moesaic certificates`: makes a set of certificates to develop with."""

import os
from collections.abc import Sequence
from pathlib import Path

from services.cli.certificates.authority import Authority, Issued
from services.cli.certificates.settings import CertificatesSettings
from services.cli.output_files import written_whole
from services.runtime.process import exit_code_of
from services.runtime.roles import Role
from services.runtime.settings import load
from services.runtime.tls_files import TlsFiles
from services.wire.errors import InvalidRequest

CERTIFICATE, KEY, AUTHORITY = "certificate.pem", "key.pem", "authority.pem"
EXAMPLES = (
    "moesaic certificates tls",
    "moesaic certificates --host gateway.example.org tls",
    "moesaic certificates --role client --name alice tls/alice",
)


def certificates(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(CertificatesSettings, arguments, "moesaic certificates", examples=EXAMPLES)

    def run() -> None:
        make_certificates(settings)
        for role in settings.roles or Role:
            print(f"{settings.folder / role}: {CERTIFICATE}, {KEY}, {AUTHORITY}")

    return exit_code_of(run, command="certificates")


def make_certificates(settings: CertificatesSettings) -> None:
    """Write the folder. Raises InvalidRequest where that cannot be done."""
    folder = settings.folder
    try:
        authority = _authority_in(folder / "authority")
        for role in settings.roles or Role:
            issued = authority.issue(role, settings.name or role, settings.hosts, settings.days)
            _write(folder / role, issued)
            _write_file(folder / role / AUTHORITY, authority.issued.certificate, 0o644)
    except OSError as error:
        raise InvalidRequest(f"{error.filename} cannot be written: {error.strerror}") from error
    except ValueError as error:  # a host that is none, an authority that is none
        raise InvalidRequest(f"no certificates can be made: {error}") from error


def files_of(folder: Path) -> TlsFiles:
    """The files of a role's folder."""
    return TlsFiles(folder / CERTIFICATE, folder / KEY, folder / AUTHORITY)


def _authority_in(folder: Path) -> Authority:
    if (folder / KEY).exists():
        return Authority.load(
            Issued((folder / CERTIFICATE).read_bytes(), (folder / KEY).read_bytes())
        )
    authority = Authority.new()
    _write(folder, authority.issued)
    return authority


def _write(folder: Path, issued: Issued) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_file(folder / KEY, issued.key, 0o600)
    _write_file(folder / CERTIFICATE, issued.certificate, 0o644)


def _write_file(file: Path, content: bytes, mode: int) -> None:
    with (
        written_whole(file) as unfinished,
        open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened,
    ):
        opened.write(content)
