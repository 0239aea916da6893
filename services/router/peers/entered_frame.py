"""A frame that an exchange in compiled code sends on a stream, and what it tells of it."""

import asyncio
from typing import NamedTuple, TypeAlias, TypeVar

from services.router.peers.frames_in_flight import FrameInFlight
from services.router.peers.native_transport import _streams

Answer = TypeVar("Answer")

# In nanoseconds sent, arrived (0 while it is not answered), decode, queue, compute and encode; the
# pairs that were granted with it, or 0; and whether its stream has something to read or to write.
ExchangeRecord: TypeAlias = tuple[int, int, int, int, int, int, int, bool]


class EnteredFrame(NamedTuple):
    """On which connection it goes, its number, how long it is given, and its size."""

    connection: "_streams.Stream"
    frame_id: int
    remaining_nanos: int
    num_pairs: int
    num_experts: int
    fitted_nanos: int

    def in_flight(self, answered: "asyncio.Future[Answer]", sent: int) -> FrameInFlight[Answer]:
        """The same as a frame that its stream awaits."""
        return FrameInFlight(
            self.frame_id,
            b"",
            answered,
            self.num_pairs,
            self.num_experts,
            sent,
            self.remaining_nanos,
            self.fitted_nanos,
        )
