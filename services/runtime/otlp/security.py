"""Certificates and keys that variables name as files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from services.runtime.otlp.variables import Found, OtelVariables


@dataclass(frozen=True)
class Security:
    """How a connection is secured: whom to trust, and who this process is. What is None is left to
    the library.
    """

    roots: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def read(cls, variables: OtelVariables, prefixes: tuple[str, ...]) -> "Security":
        """What the variables with these prefixes say; files that are unusable are refused."""
        roots, certificate, key = (
            variables.find(*(f"{prefix}_{what}" for prefix in prefixes))
            for what in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
        )
        if (certificate is None) != (key is None):
            alone = certificate or key
            assert alone is not None
            variables.refuse(alone, "a client's certificate and its key go together")
            return cls()
        security = cls(
            *(None if found is None else Path(found.value) for found in (roots, certificate, key))
        )
        for found, part in (
            (roots, cls(security.roots)),
            (certificate, cls(None, security.certificate, security.key)),
        ):
            if found is not None:
                _check(part, found, variables)
        return security

    def context(self) -> ssl.SSLContext:
        """For HTTP. Raises OSError where a file cannot be read or is no such thing."""
        context = ssl.create_default_context(cafile=self.roots)
        if self.certificate is not None:
            context.load_cert_chain(
                self.certificate, self.key, password=str
            )  # without one a terminal would be asked
        return context


def _check(security: Security, found: Found, variables: OtelVariables) -> None:
    try:
        security.context()
    except OSError as error:
        variables.refuse(found, f"cannot be used: {error.strerror or error}")
