"""What a layer of a step takes, and how many lanes that makes worth trying: arithmetic on what
steps report.
"""

import math
from dataclasses import dataclass

from services.router.times.receipt import Parts

# Of a new step in the running means: they follow a change within some tens of steps and even out
# the noise of one.
WEIGHT = 0.05
# With less of a layer's time spent waiting, more lanes could not gain what they cost.
LEAST_WAITING_SHARE = 0.1


@dataclass(frozen=True)
class StepSeen:
    """A step that has ended, in nanoseconds; `ended` by this process's monotonic clock.

    `own` is what the router computed, `wire` was under way there and back, `experts` passed at the
    services. `num_sequences` were running in all lanes when it ended.
    """

    ended: int
    own: int
    wire: int
    experts: int
    num_sequences: int
    num_tokens: int
    num_drawn: int

    @classmethod
    def from_parts(
        cls, parts: Parts, *, ended: int, num_sequences: int, num_tokens: int, num_drawn: int
    ) -> "StepSeen":
        """What there is to see in a step's parts; time in other lanes is in none of the three."""
        return cls(
            ended=ended,
            own=parts.dense + parts.gate + parts.encode + parts.combine + parts.sampling,
            wire=parts.wire,
            experts=parts.expert_queue + parts.expert_compute + parts.straggler_wait,
            num_sequences=num_sequences,
            num_tokens=num_tokens,
            num_drawn=num_drawn,
        )


class LayerTimes:
    """Running means of a layer's times, in nanoseconds; all zero before the first step."""

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._own = self._wire = self._experts = 0.0
        self._num_steps = 0

    def note(self, seen: StepSeen) -> None:
        """Take a step in."""
        self._num_steps += 1
        weight = max(WEIGHT, 1 / self._num_steps)
        self._own += weight * (seen.own / self._num_layers - self._own)
        self._wire += weight * (seen.wire / self._num_layers - self._wire)
        self._experts += weight * (seen.experts / self._num_layers - self._experts)

    @property
    def communication(self) -> float:
        """T_c: one way between router and experts."""
        return self._wire / 2

    @property
    def compute(self) -> float:
        """T_f: the slower of the router's computing and the experts'."""
        return max(self._own, self._experts)

    @property
    def whole(self) -> float:
        """A layer from its begin to the next one's."""
        return self._own + self._wire + self._experts

    @property
    def waiting_ratio(self) -> float:
        """Time spent waiting for each of the router's own computing; zero while
        nothing is known.
        """
        return (self._wire + self._experts) / self._own if self._own else 0.0

    @property
    def candidate(self) -> int:
        """How many lanes could keep router and experts busy: m >= 2 (1 + T_c / T_f),
        MegaScale-Infer (2504.02263).

        One where hardly any time is spent waiting, so that nothing could be hidden.
        """
        if self.waiting_ratio < LEAST_WAITING_SHARE / (1 - LEAST_WAITING_SHARE):
            return 1
        return math.ceil(2 * (1 + self.communication / self.compute))
