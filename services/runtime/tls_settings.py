"""The settings by which a process is given certificates, and by which strangers are kept out."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from services.runtime.addresses import ListenAddress
from services.runtime.host_port import is_loopback, split_host_port
from services.runtime.settings import Accessory
from services.runtime.tls_files import Authority, TlsFiles


class TlsSettings(BaseSettings):
    """Of whoever serves or calls with mutual TLS; all three are given, or none."""

    tls_certificate: Annotated[Path | None, Accessory] = Field(
        None,
        description="file with this process's certificate, and what stands between it and "
        "the authority, in PEM; read again when it changes",
    )
    tls_key: Annotated[Path | None, Accessory] = Field(
        None, description="file with the certificate's key, in PEM"
    )
    tls_authority: Annotated[Path | None, Accessory] = Field(
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


class CallingSettings(TlsSettings):
    """Of a client, which may have a token in place of a certificate: then it is told its authority
    alone.
    """

    @property
    def trust(self) -> TlsFiles | Authority | None:
        """The files by which a server is trusted; None where there is no TLS."""
        if self.tls_authority is None:
            return None
        return self.tls or Authority(self.tls_authority)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None) or (
            self.tls_certificate is not None and self.tls_authority is None
        ):
            raise ValueError("tls_certificate and tls_key go together, and with tls_authority")
        return self


class ServingSettings(TlsSettings):
    """Of whoever serves at an address."""

    listen: ListenAddress
    insecure: Annotated[bool, Accessory] = Field(
        False,
        description="serve whoever reaches an address that is not the loopback one, without TLS; "
        "where nobody but the cluster can reach it",
    )

    @model_validator(mode="after")
    def _strangers_are_kept_out(self) -> Self:
        if self.tls is None and not self.insecure:
            refuse_strangers(self.listen)
        return self


def refuse_strangers(listen: str) -> None:
    """Raises ValueError where an address that is served without TLS is reached by others than this
    machine.
    """
    host, _ = split_host_port(listen, lowest_port=0)
    if not is_loopback(host):
        raise ValueError(
            f"{listen} is reached from elsewhere, by whoever it may be: give certificates, listen "
            "on 127.0.0.1, or say --insecure"
        )
