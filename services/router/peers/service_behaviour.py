"""What is known of one service by all of its streams, and what each frame adds to it."""

from dataclasses import dataclass
from typing import Protocol

from services.router.peers.entered_frame import EnteredFrame
from services.router.peers.frame_deadline import FrameDeadline
from services.router.peers.native_transport import _streams
from services.router.peers.pace import Pace
from services.router.peers.suspicion import Suspicion
from services.router.peers.trust import Trust


class SizedFrame(Protocol):
    """A frame as far as its size and the time that it is expected to take go."""

    @property
    def num_pairs(self) -> int: ...

    @property
    def num_experts(self) -> int: ...

    @property
    def fitted_nanos(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ServiceBehaviour:
    """Every frame is begun once, and answered or lost once."""

    deadline: FrameDeadline
    pace: Pace
    suspicion: Suspicion
    trust: Trust

    def enter(
        self, connection: "_streams.Stream", frame_id: int, num_pairs: int, num_experts: int
    ) -> EnteredFrame:
        """Begin a frame that an exchange sends there, and say how long it may take."""
        fitted = self.deadline.fitted_nanos(num_pairs)
        remaining = self.deadline.nanos_for(fitted)
        self.deadline.begin(fitted)
        self.pace.begin(num_pairs, num_experts)
        return EnteredFrame(connection, frame_id, remaining, num_pairs, num_experts, fitted)

    def begin(self, frame: SizedFrame) -> None:
        """It is on its way."""
        self.deadline.begin(frame.fitted_nanos)
        self.pace.begin(frame.num_pairs, frame.num_experts)

    def answered(
        self, frame: SizedFrame, round_trip_nanos: int, queue_nanos: int, compute_nanos: int
    ) -> None:
        """It was computed; its service had it queued, and computed and coded it for so long."""
        num_pairs = frame.num_pairs
        self.trust.note_answer()
        self.deadline.end(frame.fitted_nanos)
        self.deadline.observe(num_pairs, round_trip_nanos)
        self.pace.end(num_pairs, frame.num_experts, round_trip_nanos, queue_nanos, compute_nanos)

    def refused(self, frame: SizedFrame) -> None:
        """It was answered, and not computed: that is quick, and says nothing of computing."""
        self.trust.note_answer()
        self.lose(frame)

    def lose(self, frame: SizedFrame) -> None:
        """It is given up."""
        self.deadline.end(frame.fitted_nanos)
        self.pace.lose(frame.num_pairs, frame.num_experts)
