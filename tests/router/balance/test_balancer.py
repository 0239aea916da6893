"""Real services host what the load asks for: by itself, when told to, and where two routers plan
for them.
"""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.model.checkpoint import Checkpoint
from services.router.balance.balancer import Balancer
from services.router.balance.planner import Planner
from services.router.hosting.operations import OperationFailed, Phase
from services.router.load.watch import RoutingWatch
from services.router.planning.balanced import Balanced
from services.router.planning.eplb import Eplb
from services.router.settings import RouterSettings
from services.wire.errors import BadState, InvalidRequest
from services.wire.expert_key import ExpertKey
from tests.router.balance.simulated import Inline
from tests.router.hosting.local_fleet import LocalExperts, LocalFleet, running_fleet, several
from tests.router.hosting.test_mover import watched

STEPS = 16
SKEWED = np.array(
    [8000] + [1000] * 7
)  # pairs of each of eight experts in a step: so many that what they take counts


class Balancing:
    """A fleet's balancer, the routing that it sees, and its clock."""

    def __init__(self, fleet: LocalFleet, planner: Planner | Inline, *, gain: float = 0.02) -> None:
        self.fleet = fleet.fleet
        self.time = 0.0
        self.watch = RoutingWatch(range(3), 8, 2, STEPS)
        settings = RouterSettings(rebalance_seconds=1.0, rebalance_steps=STEPS, rebalance_gain=gain)
        self.balancer = Balancer(fleet.fleet, self.watch, planner, settings, now=lambda: self.time)  # type: ignore[arg-type]

    def route(self, hot: int, num_steps: int = STEPS) -> None:
        """Steps in which one expert of each layer has as many pairs as all others together."""
        pairs = np.repeat((np.arange(8) + hot) % 8, SKEWED)
        for _ in range(num_steps):
            for layer in range(3):
                self.watch.note(0, layer, pairs, is_decode=True)

    async def look(self) -> None:
        """Look, with any wait over, and let what is begun come to its end."""
        self.time += 1e6
        await self.balancer.look()
        operation = self.fleet.operations.current
        if operation is not None:
            with contextlib.suppress(OperationFailed):
                async for _ in operation.follow():
                    pass


def replicas(experts: LocalExperts) -> Counter[ExpertKey]:
    return Counter(key for address in experts.parts for key in experts.hosted(address))


async def test_experts_follow_the_load_by_themselves_and_what_came_of_it_is_told(
    model: Path, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    planner = Planner()
    async with (
        several(model, 3, num_slots=12) as (experts, addresses),
        running_fleet(checkpoint, addresses) as fleet,
    ):
        balancing = Balancing(fleet, planner)
        await fleet.until(lambda: fleet.fleet.is_planner)
        balancing.route(3)
        await balancing.look()
        assert all(replicas(experts)[ExpertKey(layer, 3)] > 1 for layer in range(3))
        assert balancing.balancer.hottest_expert_replicas > 1
        (outcome,) = balancing.balancer.outcomes
        assert (outcome.achieved_gain, outcome.num_moves > 0) == (None, True)
        await balancing.look()  # sees that it is done; what comes from here on counts
        balancing.route(3)
        with caplog.at_level("INFO"):
            await balancing.look()
        (outcome,) = balancing.balancer.outcomes
        assert outcome.achieved_gain == pytest.approx(outcome.predicted_gain, abs=0.1)
        assert f"operation {outcome.operation} moved {outcome.num_moves} experts" in caplog.text
        balancing.route(3)
        await balancing.look()
        assert balancing.balancer.num_plans == {"carried_out": 1, "too_little": 1, "failed": 0}
    await planner.close()


async def test_of_two_planners_one_loses_and_plans_again_and_no_expert_is_lost(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3, num_slots=12) as (experts, addresses),
        running_fleet(checkpoint, addresses) as first,
        running_fleet(checkpoint, addresses) as second,
    ):
        both = [Balancing(fleet, Inline()) for fleet in (first, second)]
        async with watched(experts) as lost, asyncio.timeout(60):
            for hot in (3, 6):
                for balancing in both:
                    balancing.route(hot, 8 * STEPS)
                await asyncio.gather(*(balancing.look() for balancing in both))
                while sum(balancing.balancer.num_plans["too_little"] for balancing in both) < 2:
                    for balancing in both:
                        balancing.route(hot)
                    await asyncio.gather(*(balancing.look() for balancing in both))
                for balancing in both:
                    balancing.balancer.num_plans["too_little"] = 0
                assert all(replicas(experts)[ExpertKey(layer, hot)] > 1 for layer in range(3))
        assert lost == []
        assert sum(balancing.balancer.num_plans["failed"] for balancing in both) > 0
        assert all(experts.num_taken(address) <= 12 for address in addresses)


async def test_plans_are_shown_judged_and_carried_out_when_asked_for(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 2, num_slots=24) as (experts, (one, two)),
        running_fleet(checkpoint, [one, two]) as fleet,
    ):
        balancing = Balancing(fleet, Inline())
        balancer = balancing.balancer
        with pytest.raises(BadState, match="0 steps have been seen so far; 4 are needed"):
            await balancer.preview(Balanced())
        balancing.route(0)
        every = frozenset(replicas(experts))
        judgement = await balancer.judge({one: every, two: frozenset()})
        assert judgement.after_imbalance.tolist() == pytest.approx([1.0] * 3)
        assert judgement.num_steps == balancing.watch.monitor.num_steps() > 0
        with pytest.raises(BadState, match="would be on no service"):
            await balancer.judge({one: frozenset()})
        shown = await balancer.preview(Eplb())
        assert set(replicas(experts).values()) == {1}
        operation, plan = await balancer.begin("mine", Eplb())
        assert [progress async for progress in operation.follow()][-1].phase is Phase.DONE
        assert (
            {address: set(experts.hosted(address)) for address in (one, two)}
            == plan.plan.target
            == shown.plan.target
        )
        assert await balancer.begin("mine", Eplb()) == (operation, plan)
        with pytest.raises(InvalidRequest, match="that of another operation"):
            await balancer.begin("mine", Balanced())
        assert str(operation.goal).startswith("eplb plan of")


async def test_planning_that_fails_unforeseen_does_not_end_the_balancer(
    model: Path, checkpoint: Checkpoint
) -> None:
    class Failing(Inline):
        called = asyncio.Event()

        async def run(self, *arguments: Any, **named: Any) -> Any:
            self.called.set()
            raise KeyError("secret")

    planner = Failing()
    async with (
        several(model, 2, num_slots=24) as (_, addresses),
        running_fleet(checkpoint, addresses) as fleet,
    ):
        balancing = Balancing(fleet, planner)
        settings = RouterSettings(rebalance_seconds=0.01, rebalance_steps=STEPS)
        balancer = Balancer(fleet.fleet, balancing.watch, planner, settings)  # type: ignore[arg-type]
        balancing.route(3)
        running = asyncio.create_task(balancer.run())
        async with asyncio.timeout(10):
            await planner.called.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert balancer.num_plans["failed"] == 1
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
