"""Calls to a service and the connection they go over, whatever carries them: messages as bytes."""

from collections.abc import Callable
from typing import Protocol

# Takes a message, and when it arrived, in nanoseconds of the monotonic clock, where that is known;
# else None.
Receive = Callable[[bytes, int | None], None]


class ServiceCall(Protocol):
    """Messages in both directions, each whole and in order, until the call has ended: by the
    service, by a broken connection, or by `close`.
    """

    def try_send(self, message: bytes) -> bool:
        """Hand a message on without waiting; whether that could be done. Where not, `send` can, or
        says why not.
        """

    async def send(self, message: bytes) -> None:
        """Hand a message on; returns when the next may follow. Called by one task at a time, while
        nobody calls `try_send`.

        Raises ServingError when the call has ended.
        """

    async def deliver(self, receive: Receive) -> None:
        """Call `receive` with each message as it comes; called once.

        Raises ServingError when the call has ended, and whatever `receive` raises.
        """

    def close(self) -> None:
        """End it, whatever is under way; nothing happens when it has ended."""


class ServiceConnection(Protocol):
    """To one service, which it connected to or will when it is first asked."""

    kind: str  # in a word, for people

    async def ask(self, path: str, request: bytes, *, timeout_seconds: float) -> bytes:
        """The answer to one request. Raises ServingError: the service's own, or Unavailable when
        there is no answer in time.
        """

    def call(self, path: str) -> ServiceCall:
        """Begin a call that lasts; raises Unavailable where the service takes none."""
