"""Certificates for a cluster with mutual TLS, and what its processes are told of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.cli.certificates.command import files_of, make_certificates
from services.cli.certificates.settings import CertificatesSettings
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles

FILES = ("certificate", "key", "authority")


class Certificates:
    """A development set in a folder, of an authority that nobody else trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.make(list(Role))

    def make(self, roles: Sequence[Role], *, name: str | None = None) -> None:
        """Make those of the roles, or make them anew, by the same authority."""
        make_certificates(CertificatesSettings(folder=self.folder, roles=list(roles), name=name))

    def of(self, role: Role) -> TlsFiles:
        """The files of a process or a client of this role."""
        return files_of(self.folder / role)

    def settings_of(self, role: Role) -> dict[str, Any]:
        """As fields of a service's settings."""
        files = self.of(role)
        return {f"tls_{name}": getattr(files, name) for name in FILES}

    @property
    def variables(self) -> Mapping[str, str]:
        """What has every service of a cluster use its role's files."""
        return {
            f"MOESAIC_{role.name}_{field.upper()}": str(file)
            for role in Role
            for field, file in self.settings_of(role).items()
        }
