"""What is known of a service that no peer watches, as streams need it."""

from collections.abc import Iterable

from services.router.peers.frame_deadline import FrameDeadline
from services.router.peers.pace import Pace
from services.router.peers.service_behaviour import ServiceBehaviour
from services.router.peers.suspicion import Suspicion
from services.router.peers.trust import Trust


def nothing() -> None:
    """Nobody is told."""


def expect_in_order(paces: Iterable[Pace]) -> None:
    """Each service is expected to be far slower than the one before it."""
    for index, pace in enumerate(paces):
        pace.begin(1, 1)
        pace.end(1, 1, 10 ** (6 + 3 * index), 0, 0)


def behaviour_of(name: str, floor_seconds: float) -> ServiceBehaviour:
    """Frames are given so many seconds at least."""
    deadline, trust = FrameDeadline(floor_seconds), Trust(name, nothing)
    suspicion = Suspicion(name, deadline, nothing, on_probed=trust.doubt)
    return ServiceBehaviour(deadline, Pace(), suspicion, trust)
