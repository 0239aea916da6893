"""The settings by which a process is given certificates."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from services.runtime.tls_files import TlsFiles


class TlsSettings(BaseSettings):
    """Of whoever serves or calls with mutual TLS; all three are given, or none."""

    tls_certificate: Path | None = Field(
        None,
        description="file with this process's certificate, and what stands between it and "
        "the authority, in PEM; read again when it changes",
    )
    tls_key: Path | None = Field(None, description="file with the certificate's key, in PEM")
    tls_authority: Path | None = Field(
        None, description="file with the certificates of the authority that others' are to be of"
    )

    @property
    def tls(self) -> TlsFiles | None:
        """The files; None where there is no TLS."""
        certificate, key, authority = self.tls_certificate, self.tls_key, self.tls_authority
        if certificate is None or key is None or authority is None:
            return None
        return TlsFiles(certificate, key, authority)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        given = (self.tls_certificate, self.tls_key, self.tls_authority)
        if any(given) and not all(given):
            raise ValueError("tls_certificate, tls_key and tls_authority go together")
        return self
