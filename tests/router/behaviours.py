"""What is known of a service that no peer watches, as streams need it."""

from services.router.peers.frame_deadline import FrameDeadline
from services.router.peers.pace import Pace
from services.router.peers.service_behaviour import ServiceBehaviour
from services.router.peers.suspicion import Suspicion
from services.router.peers.trust import Trust


def nothing() -> None:
    """Nobody is told."""


def behaviour_of(name: str, floor_seconds: float) -> ServiceBehaviour:
    """Frames are given so many seconds at least."""
    deadline, trust = FrameDeadline(floor_seconds), Trust(name, nothing)
    suspicion = Suspicion(name, deadline, nothing, on_probed=trust.doubt)
    return ServiceBehaviour(deadline, Pace(), suspicion, trust)
