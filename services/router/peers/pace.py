"""What a service takes for a frame, estimated from its answers: round trip, and own time by what is
in the frame.
"""

import time
from typing import NamedTuple

from services.router.peers.fitted_cost import FittedCost, Nanos
from services.router.peers.late_times import LateTimes
from services.router.peers.tally import Tally

# An estimate that no answer has confirmed for so long counts half: a service that was slow is tried
# again some day, though others are preferred and nothing new is heard of it.
HALF_LIFE_NANOS = 1e9
SLOW_RISE = 0.1  # of the smoothing, where a round trip was slower than the quickest of late


class Estimate(NamedTuple):
    """Nanoseconds that a frame takes: the round trip without work, and work for the frame, each
    expert and each pair.

    `is_fitted` says whether what an expert takes is known apart from what its pairs take, which is
    zero else.
    """

    wire: float
    frame: float
    expert: float
    pair: float
    is_fitted: bool = False


class Pace:
    """Of one service the quickest round trip of late, without its own work, and a running mean of
    its time for a frame.

    Its time is the fitted cost's, as many times as long as the latest frames took that: what it
    costs is learnt slowly, and how busy it is at once. Before there is a fit it is a time for each
    pair. Every frame is begun once, and ended or lost once.
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        self.is_known = False
        self.tally = Tally()
        self._in_flight_frames = self._in_flight_experts = self._in_flight_pairs = 0
        self._smoothing = smoothing
        self._wire_nanos = 0.0
        self._nanos_per_pair = 0.0
        self._slowness = 1.0
        self._cost = FittedCost()
        self._late = LateTimes()
        self.heard = 0  # when a frame was last answered, by the monotonic clock

    @property
    def num_in_flight(self) -> int:
        """Frames that are on their way."""
        return self._in_flight_frames

    def late_nanos(self, num_pairs: int) -> float | None:
        """What a frame of so many pairs takes at most, but for one in twenty; None where too few
        were seen.
        """
        return self._late.nanos(num_pairs)

    def begin(self, num_pairs: int, num_experts: int) -> None:
        """A frame is on its way, with pairs of so many experts."""
        self._in_flight_frames += 1
        self._in_flight_experts += num_experts
        self._in_flight_pairs += num_pairs

    def end(
        self,
        num_pairs: int,
        num_experts: int,
        round_trip_nanos: int,
        queue_nanos: int,
        compute_nanos: int,
    ) -> None:
        """A frame is answered; its service had it queued, and computed and coded it for so long."""
        # Once for each frame, so that nothing is called here that need not be.
        self._in_flight_frames -= 1
        self._in_flight_experts -= num_experts
        self._in_flight_pairs -= num_pairs
        server_nanos = queue_nanos + compute_nanos
        wire = round_trip_nanos - server_nanos if round_trip_nanos > server_nanos else 0
        per_pair = server_nanos / (num_pairs or 1)
        weight = self._smoothing if self.is_known else 1.0
        # How far away a service is shows in its quickest round trips; in others a reply waited for
        # the router itself.
        wire_weight = weight * SLOW_RISE if self.is_known and wire > self._wire_nanos else 1.0
        self._wire_nanos += wire_weight * (wire - self._wire_nanos)
        self._nanos_per_pair += weight * (per_pair - self._nanos_per_pair)
        self._cost.add(num_experts, num_pairs, compute_nanos)
        self._late.add(num_pairs, round_trip_nanos)
        if self._cost.nanos is not None:
            frame, expert, pair = self._cost.nanos
            usual = frame + expert * num_experts + pair * num_pairs
            slowness = server_nanos / (usual if usual > 1.0 else 1.0)
            self._slowness += self._smoothing * (slowness - self._slowness)
        self.tally.add(num_pairs, round_trip_nanos, queue_nanos, compute_nanos)
        self.heard = time.perf_counter_ns()
        self.is_known = True

    def lose(self, num_pairs: int, num_experts: int) -> None:
        """A frame is given up."""
        self._in_flight_frames -= 1
        self._in_flight_experts -= num_experts
        self._in_flight_pairs -= num_pairs

    def fit(self) -> Nanos | None:
        """Nanoseconds of its own that a frame takes it, and each expert and each pair in it,
        without its queue.

        None while too few frames came, or too much like one another.
        """
        return self._cost.nanos

    def estimate(self, now: int) -> Estimate:
        """As it counts at `now`, in nanoseconds of the monotonic clock; only where it is known."""
        kept = 0.5 ** (max(0, now - self.heard) / HALF_LIFE_NANOS)
        wire = self._wire_nanos * kept
        if self._cost.nanos is None:
            return Estimate(wire, 0.0, 0.0, self._nanos_per_pair * kept)
        frame, expert, pair = self._cost.nanos
        kept *= self._slowness
        return Estimate(wire, frame * kept, expert * kept, pair * kept, is_fitted=True)

    def waiting_nanos(self, estimate: Estimate) -> float:
        """What is on the way takes so long."""
        work = self._in_flight_experts * estimate.expert + self._in_flight_pairs * estimate.pair
        return self._in_flight_frames * estimate.frame + work
