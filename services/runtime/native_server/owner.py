"""What a connection tells the server that took it."""

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.runtime.native_server.connection import ServerConnection


class ConnectionOwner(Protocol):
    """The server"""

    def own(self, task: "asyncio.Task[None]") -> None:
        """Keep a call's task until it has ended."""

    def settled(self) -> None:
        """The connection has no call now, and nothing to write."""

    def holds(self, change: int) -> bool:
        """The connection holds so many bytes more, or fewer, of requests. False where it has to
        read no more now, and to tell again in a later turn.
        """

    def rests(self, connection: "ServerConnection") -> None:
        """The connection has no call that was asked for in full, from now on."""

    def works(self, connection: "ServerConnection") -> None:
        """It has one again."""

    def left(self, connection: "ServerConnection") -> None:
        """The connection is gone."""
