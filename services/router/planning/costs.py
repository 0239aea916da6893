"""What one layer costs a service: a fixed time, a time for each active expert, and a time for each
pair.
"""

from dataclasses import dataclass

import numpy as np

from services.router.arrays import Floats


@dataclass(frozen=True, eq=False)
class Costs:
    """Nanoseconds of one layer in one step: fixed + expert x active experts + pair x pairs, each
    [services].
    """

    fixed_nanos: Floats
    expert_nanos: Floats
    pair_nanos: Floats

    @classmethod
    def equal(
        cls, num_services: int, fixed_nanos: float, expert_nanos: float, pair_nanos: float
    ) -> "Costs":
        """The same for every service."""
        fixed, expert, pair = (
            np.full(num_services, nanos) for nanos in (fixed_nanos, expert_nanos, pair_nanos)
        )
        return cls(fixed, expert, pair)
