"""Who may begin a call: asked when its headers are there, and before its request is."""

import ipaddress
from collections.abc import Callable
from typing import Protocol

from services.runtime.access import Shown


class Doorkeeper(Protocol):
    """Of one server."""

    def admit(self, method: str, shown: Shown) -> Callable[[], None]:
        """Let a call of a method, written `/package.Service/Name`, begin; what is returned is
        called once, when the call is over.

        Raises the ServingError that a call which may not begin ends with.
        """


def peer_of(address: tuple[object, ...]) -> str:
    """A client's address as gRPC says it."""
    host, port = ipaddress.ip_address(str(address[0]).partition("%")[0]), address[1]
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    if isinstance(host, ipaddress.IPv4Address):
        return f"ipv4:{host}:{port}"
    return f"ipv6:%5B{host}%5D:{port}"


def host_of(peer: str) -> str:
    """A peer's address without the port: what all connections of one host have in common."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
