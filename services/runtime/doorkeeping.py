"""Who may begin a call: asked when its headers are there, and before its request is."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

Metadata = tuple[tuple[str, str | bytes], ...]


class AskedCall(NamedTuple):
    """A call that wants to begin."""

    # As its path has it: `/package.Service/Method`.
    method: str
    metadata: Metadata
    # As gRPC says a peer's address: `ipv4:127.0.0.1:4000`, say.
    peer: str


class Doorkeeper(Protocol):
    """Of one server."""

    def admit(self, asked: AskedCall) -> Callable[[], None]:
        """Let a call begin; what is returned is called once, when the call is over.

        Raises the ServingError that a call which may not begin ends with.
        """


def host_of(peer: str) -> str:
    """A peer's address without the port: what all connections of one host have in common."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
