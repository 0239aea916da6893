"""What carries the messages of one stream to an expert service and back, whatever it is made of."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from services.runtime.service_calls import ServiceCall

if TYPE_CHECKING:
    from services.router._streams import Stream

DISPATCH = "/moesaic.v1.ExpertService/Dispatch"


class Transport(ServiceCall, Protocol):
    """The call of one stream. It knows nothing of what its messages say."""

    kind: str  # in a word, for people

    @property
    def native(self) -> "Stream | None":
        """What an exchange sends and reads by itself; None where nothing can."""
        ...

    def attend(self) -> None:
        """See to what an exchange left: messages, the end, or what could not be written."""


# Opens one, and does not wait until the service listens.
Connect = Callable[[], Transport]
