"""Paces of services that have been heard often enough, and how long a frame is given."""

from services.router.peers.fitted_cost import FRAMES_PER_FIT
from services.router.peers.frame_deadline import FrameDeadline
from services.router.peers.pace import Pace


def fitted_pace(
    expert: int, pair: int, *, wire: int = 1000, frame: int = 100, queue_factor: int = 0
) -> Pace:
    """A pace that knows what a frame, an expert and a pair take, in nanoseconds.

    Frames were queued `queue_factor` times as long as they were computed.
    """
    made = Pace()
    for number in range(FRAMES_PER_FIT):
        end_frame(made, 1 + number % 3, 3 + number % 7, (frame, expert, pair), wire, queue_factor)
    return made


def end_frame(
    pace: Pace, experts: int, pairs: int, cost: tuple[int, int, int], wire: int, queue_factor: int
) -> None:
    """One more frame was sent and answered."""
    frame, expert, pair = cost
    compute = frame + expert * experts + pair * pairs
    pace.begin(pairs, experts)
    pace.end(pairs, experts, wire + (1 + queue_factor) * compute, queue_factor * compute, compute)


def nanos_given(deadline: FrameDeadline, num_pairs: int) -> int:
    """How long a frame of so many pairs may take."""
    return deadline.nanos_for(deadline.fitted_nanos(num_pairs))
