"""Tells the lane policy of each step, and the scheduler what it chose."""

import logging

from services.router.engine.metrics import observe_lanes
from services.router.engine.scheduler import Scheduler
from services.router.engine.step import Step
from services.router.lanes.choice import Lanes, Why
from services.router.lanes.times import StepSeen

logger = logging.getLogger(__name__)


class LaneControl:
    """Keeps the scheduler at the number of lanes that the policy chooses, and logs every change."""

    def __init__(self, lanes: Lanes, scheduler: Scheduler) -> None:
        self._lanes = lanes
        self._scheduler = scheduler
        self._measured = scheduler.lanes_in_use = lanes.choice.lanes
        observe_lanes(lanes)

    def note(self, step: Step, num_drawn: int) -> None:
        """A step has ended; sequences move between lanes as the steps that they are in end."""
        seen = StepSeen.from_parts(
            step.clock.parts,
            ended=step.clock.started + step.clock.parts.total(),
            num_sequences=self._scheduler.num_running,
            num_tokens=step.num_tokens,
            num_drawn=num_drawn,
        )
        self._lanes.observe(seen)
        choice, before = self._lanes.choice, self._scheduler.lanes_in_use
        self._scheduler.lanes_in_use = choice.lanes
        if choice.lanes != before:
            logger.debug("%d lanes instead of %d: %s", choice.lanes, before, choice.why.value)
        if choice.why is Why.MEASURED and choice.lanes != self._measured:
            evidence = self._lanes.evidence()
            rates = ", ".join(
                f"{rate:.0f} with {lanes}"
                for lanes, rate in sorted(evidence.tokens_per_second.items())
            )
            logger.info(
                "%d lanes from now on instead of %d: tokens/s were %s",
                choice.lanes,
                self._measured,
                rates,
            )
            self._measured = choice.lanes

    def begins_after(self, lane: int) -> float:
        """Seconds that a lane waits before its first step, as sequences come to it.

        Lanes a part of a layer's time apart use wire and experts in turn. In step with one another
        they would be served as one batch, each waiting for both.
        """
        return self._lanes.evidence().whole * lane / self._scheduler.lanes_in_use
