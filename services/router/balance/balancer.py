"""Has experts hosted where the load asks for them: plans when told to, and by itself."""

import asyncio
import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from services.router.balance.hysteresis import Hysteresis
from services.router.balance.judgement import Judgement, Planned
from services.router.balance.outcomes import PlanOutcome
from services.router.balance.planner import Planner
from services.router.balance.plans import MadePlan, Plans
from services.router.hosting.fleet import Fleet
from services.router.hosting.operations import Operation
from services.router.load.watch import RoutingWatch
from services.router.planning.balanced import Balanced
from services.router.planning.static import Static
from services.router.planning.strategy import Strategy
from services.router.planning.targets import missing_replicas
from services.router.settings import RouterSettings
from services.runtime.failures import failure_of
from services.wire.expert_key import ExpertKey

logger = logging.getLogger(__name__)

MAX_OUTCOMES = 16
# So many looks nothing is done after a plan was carried out.
COOLDOWN_LOOKS = 3
# Of the steps that the load is of, so much is enough to plan with, and so much has to be new since
# the last look.
ENOUGH, NEW = 1 / 4, 1 / 8
# Looks are so far apart that planning takes no more than this share of a core.
MAX_PLANNING = 0.1


@dataclass
class _Followed:
    """A plan that is being carried out; `ended_at_step` is how many steps there had been when it
    was done.
    """

    operation: Operation
    made: MadePlan
    ended_at_step: int | None = None


class Balancer:
    """Makes plans for the load of late, begins them, and tells what became of them.

    With `settings.rebalance` it does so by itself where this router plans for all, as long as
    nothing else is under way and every service answers: see Hysteresis. `latest` is the last plan
    that it made so, `outcomes` are those carried out, the latest first.
    """

    def __init__(
        self,
        fleet: Fleet,
        watch: RoutingWatch,
        planner: Planner,
        settings: RouterSettings,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.latest: Judgement | None = None
        self.outcomes: Sequence[PlanOutcome] = ()
        self.num_plans = Counter(
            carried_out=0, too_little=0, failed=0
        )  # of those that it made by itself
        self._fleet = fleet
        self._watch = watch
        self._planner = planner
        self._settings = settings
        self._now = now
        self._plans = Plans(fleet, watch, planner, max(1, round(ENOUGH * settings.rebalance_steps)))
        self._hysteresis = Hysteresis(
            settings.rebalance_gain, COOLDOWN_LOOKS * settings.rebalance_seconds
        )
        self._followed: _Followed | None = None
        self._num_steps_seen = 0  # at the last look
        self._hottest = 0  # position of the busiest expert among all by then
        self._name = f"balance-{uuid.uuid4().hex[:8]}"
        self._num_own = 0

    @property
    def layers(self) -> Sequence[int]:
        """The layers with experts, as the figures of a plan have them."""
        return self._fleet.wanted.layers

    @property
    def hottest_expert_replicas(self) -> int:
        """Services on which the expert is ready that had most pairs when the load was last looked
        at.
        """
        return int(self._fleet.laid.counts.flat[self._hottest])

    async def run(self) -> None:
        """Look every now and then until cancelled; the planner's process ends then."""
        seconds = self._settings.rebalance_seconds
        try:
            while True:
                await asyncio.sleep(seconds)
                began = self._now()
                try:
                    await self.look()
                except Exception as error:  # noqa: BLE001 -- the boundary of planning: requests are served meanwhile
                    logger.warning("no placement was planned: %s", failure_of(error, "planning"))
                    self._fail()
                seconds = max(
                    self._settings.rebalance_seconds, (self._now() - began) / MAX_PLANNING
                )
        finally:
            await self._planner.close()

    async def preview(self, strategy: Strategy) -> Judgement:
        """What would be changed for the load of late. Changes nothing.

        Raises BadState while too few steps have been seen, or a service does not answer; Overloaded
        when expert memory does not suffice, or too many plans are being waited for; and what the
        planner does.
        """
        return (await self._plans.make(strategy)).judgement

    async def judge(self, target: Mapping[str, Set[ExpertKey]]) -> Judgement:
        """What a target would bring under the load of late.

        Raises as `preview` does, and as `check_target` for one that must not be carried out.
        """
        return await self.preview(Static(target))

    async def begin(
        self, name: str, strategy: Strategy, *, force: bool = False
    ) -> tuple[Operation, Judgement]:
        """Plan and begin to carry it out, or give the operation of that name and its plan.

        Raises as `preview` and `Fleet.change` do.
        """
        kind = type(strategy).__name__.lower()
        known = self._fleet.operations.known(name)
        if known is not None and known.failure is None and isinstance(known.goal, Planned):
            same = replace(
                known.goal, strategy=kind
            )  # which is refused, if it is of another strategy
            return self._fleet.change(name, same, force=force), known.goal.judgement
        made = await self._plans.make(strategy)
        operation = self._fleet.change(
            name, Planned(strategy=kind, judgement=made.judgement), force=force
        )
        assert isinstance(operation.goal, Planned), (
            "it is that goal, or an equal one that was begun meanwhile"
        )
        if operation.goal.judgement is made.judgement and made.judgement.plan.moves:
            self._follow(operation, made)
        return operation, operation.goal.judgement

    async def look(self) -> None:
        """Judge what was done; then plan, and begin to carry it out where that is worth it. Raises
        ServingError.
        """
        if not await self._is_followed_up() or not self._is_due():
            return
        self._num_steps_seen = self._watch.num_steps
        self._hottest = int(self._watch.monitor.smoothed_load().tokens.argmax())
        made = await self._plans.make(Balanced())
        self.latest = made.judgement
        is_worth = made.judgement.plan.moves and self._hysteresis.is_worth(
            await self._plans.gains(made)
        )
        if not is_worth:
            self.num_plans["too_little"] += 1
        elif (
            self._is_quiet() and self._plans.hosts() == made.hosts
        ):  # as it was when it was planned
            self._begin_own(made)

    def _is_due(self) -> bool:
        is_new = (
            self._watch.num_steps - self._num_steps_seen >= NEW * self._settings.rebalance_steps
        )
        is_known = is_new and self._plans.has_seen_enough
        is_time = self._settings.rebalance and not self._hysteresis.seconds_left(self._now())
        return is_known and is_time and self._fleet.is_planner and self._is_quiet()

    def _is_quiet(self) -> bool:
        """Whether nothing is under way, by this router or another, and nothing has to be done
        first.
        """
        fleet, hosts = self._fleet, self._plans.hosts()
        if (
            not fleet.is_complete
            or fleet.operations.current is not None
            or not fleet.transfers.is_idle()
        ):
            return False
        if any(
            peer.is_live and (peer.is_suspect or fleet.survey.trouble(peer)) for peer in fleet.peers
        ):
            return False
        if any(
            host.loading or host.retiring or (host.is_draining and (host.hosted or host.refused))
            for host in hosts
        ):
            return False
        if not fleet.laid.num_below(fleet.wanted.coverage):  # which is quicker to see than to plan
            return True
        missing = missing_replicas(fleet.wanted.experts, hosts, fleet.wanted.coverage)
        return not missing.loads and missing.shortage is None

    def _begin_own(self, made: MadePlan) -> None:
        self._num_own += 1
        goal = Planned(strategy="balanced", judgement=made.judgement, ends_when_outdated=True)
        # Forced as the keeper's: where memory does not hold the coverage, less is better than
        # nothing.
        operation = self._fleet.operations.begin(
            f"{self._name}-{self._num_own}", goal, force=True, is_own=True
        )
        self.num_plans["carried_out"] += 1
        self._follow(operation, made)

    def _follow(self, operation: Operation, made: MadePlan) -> None:
        self._drop_unfinished()
        plan = made.judgement.plan
        outcome = PlanOutcome(
            operation.name, len(plan.moves), float(plan.before.sum()), float(plan.after.sum())
        )
        self.outcomes = (outcome, *self.outcomes)[:MAX_OUTCOMES]
        self._followed = _Followed(operation, made)

    async def _is_followed_up(self) -> bool:
        """Whether nothing is left to be known of the last plan."""
        followed = self._followed
        if followed is None:
            return True
        if not followed.operation.has_ended:
            return False
        if followed.operation.failure is not None:
            self._drop_unfinished()
            if followed.operation.is_own:
                self._fail()
            return True
        if followed.ended_at_step is None:
            followed.ended_at_step = self._watch.num_steps
        if self._watch.num_steps - followed.ended_at_step < self._settings.rebalance_steps:
            return False
        self._followed = None
        await self._judge(followed)
        return True

    async def _judge(self, followed: _Followed) -> None:
        """Compare what the load that came takes with what it would have taken; its costs are those
        of the plan.
        """
        hosts, made = self._plans.hosts(), followed.made
        if [host.address for host in hosts] != [host.address for host in made.hosts]:
            self._hysteresis.note_end(self._now())
            return
        unchanged, achieved = await self._plans.window_nanos(made, made.hosts, hosts)
        index = [outcome.operation for outcome in self.outcomes].index(followed.operation.name)
        outcome = replace(self.outcomes[index], unchanged_nanos=unchanged, achieved_nanos=achieved)
        self.outcomes = (*self.outcomes[:index], outcome, *self.outcomes[index + 1 :])
        achieved_gain = outcome.achieved_gain or 0.0
        if followed.operation.is_own:
            self._hysteresis.note_outcome(outcome.predicted_gain, achieved_gain, self._now())
        else:
            self._hysteresis.note_end(self._now())
        logger.info(
            "operation %s moved %d experts: a step's experts were to be done %.1f%% sooner, and "
            "are %.1f%%",
            *(
                outcome.operation,
                outcome.num_moves,
                100 * outcome.predicted_gain,
                100 * achieved_gain,
            ),
        )

    def _drop_unfinished(self) -> None:
        """Forget the last plan, where it was not carried out to its end."""
        followed, self._followed = self._followed, None
        if followed is not None and (
            not followed.operation.has_ended or followed.operation.failure is not None
        ):
            self.outcomes = self.outcomes[1:]

    def _fail(self) -> None:
        self.num_plans["failed"] += 1
        self._hysteresis.note_failure(self._now(), random.random())
