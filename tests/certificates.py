"""A development set of certificates, and others that nobody of it trusts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.cli.certificates.command import files_of, make_certificates
from services.cli.certificates.settings import CertificatesSettings
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles


class Certificates:
    """Made once for all tests of a process; a test that replaces some makes a set of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.make(list(Role))

    def make(self, roles: Sequence[Role], *, name: str | None = None) -> None:
        """Make those of the roles, or make them anew, by the same authority."""
        make_certificates(CertificatesSettings(folder=self.folder, roles=list(roles), name=name))

    def of(self, role: Role) -> TlsFiles:
        """The role's files."""
        return files_of(self.folder / role)

    def settings_of(self, role: Role) -> dict[str, Any]:
        """As fields of a service's settings."""
        files = self.of(role)
        return {
            "tls_certificate": files.certificate,
            "tls_key": files.key,
            "tls_authority": files.authority,
        }
