"""What `moesaic certificates` can be told."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, field_validator
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from services.runtime.host_port import split_host_port
from services.runtime.roles import CLIENT_NAME, Role
from services.runtime.settings import OnePerFlag


class CertificatesSettings(BaseSettings):
    """Make an authority and a certificate of it for each role, to try a cluster with mutual TLS.

    Each role has a folder with certificate.pem, key.pem and authority.pem. Where the folder has an
    authority already, new certificates of that one take the place of the former, and services take
    them up while they serve.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOESAIC_CERTIFICATES_",
        frozen=True,
        cli_shortcuts={"hosts": "host", "roles": "role"},
    )

    folder: CliPositionalArg[Path] = Field(description="folder to write")
    hosts: Annotated[list[str], OnePerFlag] = Field(
        [],
        description="name or address by which gateways and tracing services are reached, besides "
        "this machine's loopback; may be given several times",
    )
    roles: Annotated[list[Role], OnePerFlag] = Field(
        [], description="role to make a certificate for, else all; may be given several times"
    )
    name: str | None = Field(
        None,
        pattern=CLIENT_NAME,
        description="name that the certificates' owner is called by, else the role's; a gateway "
        "tells its clients apart by it",
    )
    days: PositiveInt = Field(90, le=3650, description="days that the certificates hold")

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            split_host_port(f"[{host}]:1" if ":" in host else f"{host}:1")
        return hosts
