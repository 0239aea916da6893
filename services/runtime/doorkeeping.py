"""Who may begin a call: asked when its headers are there, and before its request is."""

import ipaddress
from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote

from services.runtime.access import Shown
from services.runtime.host_port import address_of

# Of an IPv6 address: what is given to one subscriber or machine at least.
NETWORK_BITS = 64


class Doorkeeper(Protocol):
    """Of one server."""

    def admit(self, method: str, shown: Shown) -> Callable[[], None]:
        """Let a call of a method, written `/package.Service/Name`, begin; what is returned is
        called once, when the call is over.

        Raises the ServingError that a call which may not begin ends with.
        """


def peer_of(address: tuple[object, ...]) -> str:
    """A client's address as gRPC says it."""
    host, port = address_of(str(address[0])), address[1]
    if isinstance(host, ipaddress.IPv4Address):
        return f"ipv4:{host}:{port}"
    return f"ipv6:%5B{host}%5D:{port}"


def host_of(peer: str) -> str:
    """A peer's address without the port: what all connections of one host have in common.

    Of IPv6 it is the network of 64 bits: a host may have every address of its own, and one that
    counts as many hosts would have as many shares.
    """
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return peer
    host = unquote(rest.rpartition(":")[0]).strip("[]").partition("%")[0]
    if family == "ipv4":
        return f"{family}:{host}"
    return f"{family}:{ipaddress.IPv6Network((host, NETWORK_BITS), strict=False)}"
