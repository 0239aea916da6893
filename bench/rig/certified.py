"""Certificates for a cluster with mutual TLS, and what its processes are told of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.cli.certificates.command import files_of, make_certificates
from services.cli.certificates.settings import CertificatesSettings
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles


@dataclass(frozen=True)
class Certified:
    """Of one authority, in a folder."""

    folder: Path

    @classmethod
    def made_in(cls, folder: Path) -> Self:
        """A new set."""
        make_certificates(CertificatesSettings(folder=folder))
        return cls(folder)

    def of(self, role: Role) -> TlsFiles:
        """The files of a process or a client of this role."""
        return files_of(self.folder / role)

    @property
    def variables(self) -> Mapping[str, str]:
        """What has every service of a cluster use its role's files."""
        return {
            f"MOESAIC_{role.name}_TLS_{name.upper()}": str(getattr(self.of(role), name))
            for role in Role
            for name in ("certificate", "key", "authority")
        }
