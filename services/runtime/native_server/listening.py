"""Where a server listens, by the rules that gRPC's addresses have."""

import errno
import socket

from services.runtime.host_port import is_unspecified, split_host_port

BACKLOG = 1024


def listen_on(address: str) -> list[socket.socket]:
    """Listening sockets that do not block, all on one port: of each address that the host stands
    for, and of both families where it is any.

    Raises OSError where a port is in use or no address is this machine's, ValueError where
    `address` is none.
    """
    host, port = split_host_port(address, lowest_port=0)
    if is_unspecified(host) and socket.has_dualstack_ipv6():
        return [_listener(socket.AF_INET6, ("::", port), is_dualstack=True)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    failure = OSError(errno.EADDRNOTAVAIL, f"{host} stands for no address")
    # A name may stand for the same address twice.
    for family, name in dict.fromkeys((family, str(where[0])) for family, *_, where in found):
        at = (name, listeners[0].getsockname()[1] if listeners else port)
        try:
            listeners.append(_listener(family, at))
        except OSError as error:
            failure = error
            if error.errno == errno.EADDRINUSE:
                break
    if not listeners or failure.errno == errno.EADDRINUSE:
        for listener in listeners:
            listener.close()
        raise failure
    return listeners


def _listener(family: int, where: tuple[str, int], *, is_dualstack: bool = False) -> socket.socket:
    listener = socket.create_server(
        where, family=family, backlog=BACKLOG, dualstack_ipv6=is_dualstack
    )
    listener.setblocking(False)
    return listener
