"""Makes plans for the load of late: with what the services host, what they take, and how long it
takes them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain

from services.router.balance.judgement import Judgement
from services.router.balance.outcomes import gain
from services.router.balance.planner import Planner
from services.router.balance.speeds import costs_of
from services.router.hosting.fleet import Fleet
from services.router.load.load import ExpertLoad
from services.router.load.watch import RoutingWatch
from services.router.planning.costs import Costs
from services.router.planning.host import Host
from services.router.planning.plan import plan, step_nanos
from services.router.planning.strategy import Strategy
from services.wire.errors import BadState
from services.wire.expert_key import ExpertKey

# How often a plan is made anew since what is hosted has changed while it was made.
MAX_PLANS = 3
# What a layer takes the router longer in which it chooses among replicas, on the path, as
# `bench.generate` shows it.
CHOOSING_NANOS = 200_000


@dataclass(frozen=True, eq=False)
class MadePlan:
    """A plan, the services as they were when it was made, and what they cost by then."""

    judgement: Judgement
    hosts: Sequence[Host]
    costs: Costs


class Plans:
    """Makes and judges plans in the planner's process.

    They are made for the load of all steps, of decode and prefill alike: in their mean each kind
    weighs as much as it takes of the experts' time, which is what a plan is to shorten. The
    smoothed load is what they are made for, since a topic that has just come does not count for all
    yet; the window's is what they are judged by besides, since one that has just gone does not
    count there any more.
    """

    def __init__(
        self, fleet: Fleet, watch: RoutingWatch, planner: Planner, num_steps_needed: int
    ) -> None:
        self._fleet = fleet
        self._watch = watch
        self._planner = planner
        self._num_steps_needed = num_steps_needed

    @property
    def has_seen_enough(self) -> bool:
        """Whether there have been steps enough to plan for."""
        return self._watch.monitor.num_steps() >= self._num_steps_needed

    async def make(self, strategy: Strategy) -> MadePlan:
        """A plan for what is hosted now.

        Raises BadState while too few steps have been seen, or a service does not answer, and what
        `plan` and the planner do.
        """
        for _ in range(MAX_PLANS):
            self._check_ready()
            hosts, load, num_steps = (
                self.hosts(),
                self._watch.monitor.smoothed_load(),
                self._watch.monitor.num_steps(),
            )
            costs = self._costs(hosts, load)
            made = await self._planner.run(plan, load, hosts, costs, self._fleet.wanted, strategy)
            if self.hosts() == hosts:
                break
        return MadePlan(Judgement(made, num_steps), hosts, costs)

    async def gains(self, made: MadePlan) -> tuple[float, float]:
        """What is saved of a step's expert time: by the load that the plan was made for, and in the
        last window.

        Less what choosing takes the router in layers that would have replicas to choose from, and
        have none now.
        """
        planned = made.judgement.plan
        num_more = _num_with_choice(planned.target.values()) - _num_with_choice(
            host.hosted for host in made.hosts
        )
        choosing = CHOOSING_NANOS * num_more
        before, after = await self.window_nanos(made, made.hosts, _as_planned(made))
        planned_before, planned_after = float(planned.before.sum()), float(planned.after.sum())
        return gain(planned_before, planned_after + choosing), gain(before, after + choosing)

    async def window_nanos(
        self, made: MadePlan, before: Sequence[Host], after: Sequence[Host]
    ) -> tuple[float, float]:
        """The time that experts take in a mean step of the last window, by a plan's costs: before
        and after.
        """
        load, costs, wanted = self._watch.monitor.load(), made.costs, self._fleet.wanted
        nanos_before = await self._planner.run(step_nanos, load, before, costs, wanted)
        return nanos_before, await self._planner.run(step_nanos, load, after, costs, wanted)

    def hosts(self) -> Sequence[Host]:
        """The services as they are."""
        return self._fleet.survey.hosts()

    def _check_ready(self) -> None:
        if not self._fleet.is_complete:
            raise BadState("the router is starting: its experts are not all hosted yet")
        for peer in self._fleet.peers:
            if peer.is_live and peer.is_suspect:
                raise BadState(
                    f"expert service {peer.address} does not answer; wait until it does, or drain "
                    "it"
                )
            if peer.is_live and (trouble := self._fleet.survey.trouble(peer)) is not None:
                raise BadState(trouble)
        if not self.has_seen_enough:
            raise BadState(
                f"{self._watch.monitor.num_steps()} steps have been seen so far; "
                f"{self._num_steps_needed} are needed to plan for their load"
            )

    def _costs(self, hosts: Sequence[Host], load: ExpertLoad) -> Costs:
        fits = {peer.address: peer.pace.fit() for peer in self._fleet.peers}
        return costs_of([fits[host.address] for host in hosts], load)


def _as_planned(made: MadePlan) -> Sequence[Host]:
    target = made.judgement.plan.target
    return [
        replace(host, hosted=target.get(host.address, frozenset()), loading=frozenset())
        for host in made.hosts
    ]


def _num_with_choice(hosted: Iterable[Set[ExpertKey]]) -> int:
    """Layers that have an expert on more than one service."""
    replicas = Counter(chain.from_iterable(hosted))
    return len({layer for (layer, _), count in replicas.items() if count > 1})
