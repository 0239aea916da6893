"""Load, plan, hosting and load again: one topic is balanced once, and topics that take turns move
little.
"""

from dataclasses import replace

import numpy as np
import pytest

from services.router.planning.balanced import Balanced
from services.wire.errors import BadState
from tests.router.balance.simulated import NUM_EXPERTS, NUM_LAYERS, STEPS, Simulation, World

FULL = (
    NUM_LAYERS * NUM_EXPERTS // 4 + 1
)  # slots of each of four services: nothing free but the transfer slot


async def test_under_one_topic_what_pays_is_done_and_then_nothing_until_another_comes_to_stay() -> (
    None
):
    simulation = Simulation(World(4, FULL + 3), 0)
    for _ in range(20):
        await simulation.look(0)
    first = simulation.balancer.outcomes[-1]
    assert first.achieved_gain is not None
    assert first.achieved_gain == pytest.approx(first.predicted_gain, abs=0.05)
    assert first.predicted_gain >= 0.05
    done = len(simulation.world.num_loads)
    assert 1 <= done <= 3
    for _ in range(5):
        await simulation.look(0)
    assert len(simulation.world.num_loads) == done
    assert simulation.balancer.num_plans["too_little"] >= 5
    for _ in range(12):
        await simulation.look(1)
    assert len(simulation.world.num_loads) > done


@pytest.mark.parametrize("looks_each", [1, 2, 3])
async def test_topics_that_take_turns_with_memory_full_do_not_thrash(looks_each: int) -> None:
    """To follow each turn would take an operation for each, or for each cooldown at least."""
    simulation, num_looks = Simulation(World(4, FULL), looks_each), 60
    for look in range(num_looks):
        await simulation.look(look // looks_each % 2)
    moved = simulation.world.num_loads
    assert len(moved) <= 5
    assert sum(moved) <= 2 * NUM_LAYERS * NUM_EXPERTS
    assert simulation.balancer.latest is not None


async def test_what_is_gained_must_be_more_than_choosing_among_replicas_takes_the_router() -> None:
    simulation = Simulation(World(4, FULL + 3), 0)
    for peer in simulation.world.peers:
        peer.costs = (2e4, 1e4, 1e3)
    for _ in range(5):
        await simulation.look(0)
    latest = simulation.balancer.latest
    assert latest is not None
    assert latest.plan.gain_nanos > 0.05 * latest.plan.before.sum()
    assert not simulation.world.num_loads


async def test_coverage_is_kept_and_spare_memory_used() -> None:
    simulation = Simulation(World(4, 2 * FULL + 2, coverage=2), 0, gain=0.01)
    for _ in range(10):
        await simulation.look(0)
    assert simulation.world.num_loads
    assert sum(len(host.hosted) for host in simulation.world.hosting) > 2 * NUM_LAYERS * NUM_EXPERTS


async def test_nothing_is_done_before_steps_enough_have_come_or_while_something_else_is_to_do() -> (
    None
):
    simulation = Simulation(World(4, FULL + 3), 0)
    world, peer = simulation.world, simulation.world.peers[0]
    await simulation.look(0, num_steps=STEPS // 4 - 1)
    peer.is_suspect = True
    await simulation.look(0)
    peer.is_suspect, world.is_complete = False, False
    await simulation.look(0)
    world.is_complete = True
    host = world.hosting[0]
    world.hosting[0] = replace(host, is_draining=True)
    await simulation.look(0)
    world.hosting[0] = host
    world.troubles[peer.address] = "its checkpoint has changed"
    await simulation.look(0)
    with pytest.raises(BadState, match="its checkpoint has changed"):
        await simulation.balancer.preview(Balanced())
    world.troubles.clear()
    assert simulation.balancer.latest is None
    await simulation.look(0)
    assert simulation.balancer.latest is not None
    assert np.isfinite(simulation.balancer.latest.before_imbalance).all()
