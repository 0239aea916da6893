"""What carries the messages of one stream to an expert service and back, whatever it is made of."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.router._streams import Stream

DISPATCH = "/moesaic.v1.ExpertService/Dispatch"

# Takes a message, and when it arrived, in nanoseconds of the monotonic clock, where the transport
# knows that; else None.
Receive = Callable[[bytes, int | None], None]


class Transport(Protocol):
    """Messages in both directions, each whole and in order, until it has ended: by the service, by
    a broken connection, or by `close`. It knows nothing of what they say.
    """

    kind: str  # in a word, for people

    @property
    def native(self) -> "Stream | None":
        """What an exchange sends and reads by itself; None where nothing can."""
        ...

    def attend(self) -> None:
        """See to what an exchange left: messages, the end, or what could not be written."""

    def try_send(self, message: bytes) -> bool:
        """Hand a message on without waiting; whether that could be done. Where not, `send` can, or
        says why not.
        """

    async def send(self, message: bytes) -> None:
        """Hand a message on; returns when the next may follow. Called by one task at a time, while
        nobody calls `try_send`.

        Raises ServingError when the transport has ended.
        """

    async def deliver(self, receive: Receive) -> None:
        """Call `receive` with each message as it comes; called once.

        Raises ServingError when the transport has ended, and whatever `receive` raises.
        """

    def close(self) -> None:
        """End it, whatever is under way; nothing happens when it has ended."""


# Opens one, and does not wait until the service listens.
Connect = Callable[[], Transport]
