"""Who a gateway's clients are, by what they show: a token, a certificate, or only where they call
from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from services.gateway.tokens import TokenFile
from services.runtime.access import Access, RolesAccess, Shown, common_name
from services.runtime.doorkeeping import host_of
from services.runtime.tls_files import TlsFiles
from services.wire.errors import Unauthenticated

SCHEME = "bearer "
CLIENT_NOTE = "client"


@dataclass(frozen=True)
class Client:
    """By whose name requests are paced. Without a rate of its own it has everybody's."""

    name: str
    requests_per_second: float | None = None


class Clients(Access, Protocol):
    """Lets clients in, and tells them apart."""

    # Whether each call shows something that a browser does not add by itself.
    asks_for_keys: bool

    def client_of(self, context: Shown) -> Client:
        """Whose call it is. Raises Unauthenticated as `check` does."""


def clients_by(tokens: Path | None, tls: TlsFiles | None) -> Clients:
    """By tokens where there are some, else by certificates, else all are let in.

    Raises BadState when the file of tokens cannot be read.
    """
    if tokens is not None:
        return TokenClients(TokenFile(tokens))
    return CertificateClients() if tls is not None else AnyClients()


class TokenClients:
    """Each has a token, which no call goes without."""

    needs_certificate = False
    asks_for_keys = True

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    def check(self, method: str, context: Shown) -> None:
        self.client_of(context)

    def client_of(self, context: Shown) -> Client:
        return _once(context, self._found)

    def _found(self, context: Shown) -> Client:
        holder = self._tokens.holder_of(_token(context))
        if holder is None:
            raise Unauthenticated("a call needs `authorization: Bearer TOKEN` with a known token")
        return Client(holder.name, holder.requests_per_second)


class CertificateClients(RolesAccess):
    """Each is called what its certificate calls it."""

    asks_for_keys = False

    def client_of(self, context: Shown) -> Client:
        return _once(context, self._found)

    def _found(self, context: Shown) -> Client:
        name = common_name(context.auth_context())
        if name is None:
            raise Unauthenticated("the certificate has no common name")
        return Client(name)


class AnyClients:
    """Nobody shows anything; they are told apart by their hosts."""

    needs_certificate = False
    asks_for_keys = False

    def check(self, method: str, context: Shown) -> None:
        """Everybody is let in."""

    def client_of(self, context: Shown) -> Client:
        return _once(context, _by_host)


def _by_host(context: Shown) -> Client:
    return Client(host_of(context.peer()))


def _once(context: Shown, found: Callable[[Shown], Client]) -> Client:
    """Whose a call is, looked up once for each: at the door, before its request, and by its
    handler. gRPC's own contexts keep no notes.
    """
    notes: dict[str, Any] | None = getattr(context, "notes", None)
    if notes is None:
        return found(context)
    if CLIENT_NOTE not in notes:
        notes[CLIENT_NOTE] = found(context)
    client: Client = notes[CLIENT_NOTE]
    return client


def _token(context: Shown) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            is_bearer = value[: len(SCHEME)].lower() == SCHEME
            return value[len(SCHEME) :].strip() if is_bearer else ""
    return ""
