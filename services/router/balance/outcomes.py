"""What became of plans that were carried out: what they were to gain, and what they gained under
the load that came.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlanOutcome:
    """The time that experts take a mean step, in nanoseconds, by the costs that the plan was made
    with.

    `before_nanos` and `predicted_nanos` are of the load that was planned for, without and with the
    plan. Of the load that came afterwards `unchanged_nanos` is what it would have taken without the
    plan, `achieved_nanos` what it takes with what is hosted; None while too few steps have come.
    """

    operation: str
    num_moves: int
    before_nanos: float
    predicted_nanos: float
    unchanged_nanos: float | None = None
    achieved_nanos: float | None = None

    @property
    def predicted_gain(self) -> float:
        """Share of a step's expert time that was to be gained."""
        return gain(self.before_nanos, self.predicted_nanos)

    @property
    def achieved_gain(self) -> float | None:
        """The same as it came; below 0 for a loss."""
        if self.unchanged_nanos is None or self.achieved_nanos is None:
            return None
        return gain(self.unchanged_nanos, self.achieved_nanos)


def gain(before_nanos: float, after_nanos: float) -> float:
    """Share of the time before that is saved; 0 where there was none."""
    return 1 - after_nanos / before_nanos if before_nanos > 0 else 0.0
