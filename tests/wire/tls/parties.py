"""Both sides of a connection with TLS, and what is between them, which a test may tamper with."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.cli.certificates.authority import Authority, Issued
from services.runtime.roles import Role
from services.wire.connections import Connection
from services.wire.tls import Context

AUTHORITY = Authority.new()
TRUSTED = AUTHORITY.issued.certificate
ROUTER = AUTHORITY.issue(Role.ROUTER, "router-7", [], 1)
EXPERT = AUTHORITY.issue(Role.EXPERT, "expert-3", [], 1)
GATEWAY = AUTHORITY.issue(Role.GATEWAY, "gateway", ["127.0.0.1"], 1)
HOST = Role.EXPERT.server_name

MAX_MESSAGE_BYTES = 4 << 20
LIMITS = (MAX_MESSAGE_BYTES, 100, 8 << 20, 8 << 20)
LITTLE = 1 << 15
Heard = list[tuple[int, int, bytes]]
Tamper = Callable[[bytes], bytes]


def server_context(issued: Issued = EXPERT, authority: bytes | None = TRUSTED) -> Context:
    """Of a server with this certificate."""
    return Context(True, issued.certificate, issued.key, authority)


def client_context(issued: Issued | None = ROUTER, authority: bytes = TRUSTED) -> Context:
    """Of a client with this certificate, or none."""
    if issued is None:
        return Context(False, None, None, authority)
    return Context(False, issued.certificate, issued.key, authority)


def unchanged(data: bytes) -> bytes:
    """What is between the sides does no more than pass on."""
    return data


class Parties:
    """A client and a server. Bytes go from one to the other where `pass_on` says so."""

    def __init__(
        self, client: Context | None, server: Context | None, host: str | None = HOST
    ) -> None:
        ours, self._beside_client = _pair()
        theirs, self._beside_server = _pair()
        self.client = Connection(ours.detach(), False, *LIMITS, client, host)
        self.server = Connection(theirs.detach(), True, *LIMITS, server)

    def pass_on(self, to_server: Tamper = unchanged, to_client: Tamper = unchanged) -> bool:
        """Some of what either has said by now; whether it was anything."""
        said = _pass_on(self._beside_client, self._beside_server, to_server)
        return _pass_on(self._beside_server, self._beside_client, to_client) or said

    def exchange(
        self, to_server: Tamper = unchanged, to_client: Tamper = unchanged
    ) -> tuple[Heard, Heard]:
        """What client and server hear, until neither says anything more."""
        heard: tuple[Heard, Heard] = ([], [])
        while True:
            for end in (self.client, self.server):
                end.flush()
            is_any = self.pass_on(to_server, to_client)
            for into, end in zip(heard, (self.client, self.server), strict=True):
                into += [(stream, kind, data) for stream, kind, data, _ in end.receive()]
            if not is_any:
                return heard

    def said_by_client(self) -> bytes:
        """What the client has said and nobody was told."""
        return self._beside_client.recv(1 << 20)

    def tell_server(self, data: bytes) -> None:
        """Whoever says it."""
        self._beside_server.sendall(data)

    def hang_up(self) -> None:
        """The line between them is cut."""
        self._beside_client.close()
        self._beside_server.close()

    def close(self) -> None:
        """Close everything."""
        self.client.close()
        self.server.close()
        self.hang_up()


@contextmanager
def parties(
    client: Context | None, server: Context | None, host: str | None = HOST
) -> Iterator[Parties]:
    """Both sides, closed at the end."""
    made = Parties(client, server, host)
    try:
        yield made
    finally:
        made.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
    return pair


def _pass_on(source: socket.socket, target: socket.socket, tamper: Tamper) -> bool:
    """Of a little, for which the target has room since all before it was read."""
    try:
        data = source.recv(LITTLE)
        target.sendall(tamper(data))
    except OSError:  # nothing is there, or nobody
        return False
    return bool(data)
