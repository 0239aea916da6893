"""Costs are found again from frames, never negative, and kept where frames cease to tell them
apart.
"""

from itertools import cycle, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.peers.fitted_cost import (
    FRAMES_PER_FIT,
    HALF_LIFE_FRAMES,
    FittedCost,
    non_negative,
)

COST = (30_000, 100_000, 5_000)
DECODE = [(1, 1), (2, 2), (3, 4), (4, 6), (2, 3)]
PREFILL = [(4, 300), (3, 200), (4, 512)]


def nanos_of(experts: int, pairs: int, slowness: float = 1.0) -> int:
    frame, expert, pair = COST
    return int(slowness * (frame + expert * experts + pair * pairs))


def add(
    cost: FittedCost, frames: list[tuple[int, int]], fits: int = 1, slowness: float = 1.0
) -> None:
    for experts, pairs in islice(cycle(frames), fits * FRAMES_PER_FIT):
        cost.add(experts, pairs, nanos_of(experts, pairs, slowness))


def test_what_frames_were_made_of_is_found_again() -> None:
    for frames in (DECODE, PREFILL + DECODE):
        cost = FittedCost()
        add(cost, frames)
        assert cost.nanos == pytest.approx(COST, rel=1e-3)


def test_it_is_found_in_noise_with_a_prefill_now_and_then() -> None:
    cost, generator = FittedCost(), np.random.default_rng(0)
    for experts, pairs in islice(cycle(DECODE * 10 + PREFILL), 10 * FRAMES_PER_FIT):
        cost.add(experts, pairs, nanos_of(experts, pairs, generator.lognormal(0, 0.1)))
    assert cost.nanos == pytest.approx(COST, rel=0.25)


def test_frames_that_were_held_up_do_not_count() -> None:
    cost = FittedCost()
    for number, (experts, pairs) in enumerate(islice(cycle(DECODE), 2 * FRAMES_PER_FIT)):
        cost.add(experts, pairs, nanos_of(experts, pairs, 1000.0 if number % 16 == 3 else 1.0))
    assert cost.nanos == pytest.approx(COST, rel=1e-3)


def test_too_few_frames_tell_nothing() -> None:
    cost = FittedCost()
    for experts, pairs in islice(cycle(DECODE), FRAMES_PER_FIT - 1):
        cost.add(experts, pairs, nanos_of(experts, pairs))
    assert cost.nanos is None
    cost.add(1, 1, nanos_of(1, 1))
    assert cost.nanos is not None


@pytest.mark.parametrize("frames", [[(2, 2)], [(1, 1), (2, 2), (3, 3)], [(3, 8), (3, 80), (3, 20)]])
def test_frames_that_are_too_much_alike_tell_nothing(frames: list[tuple[int, int]]) -> None:
    cost = FittedCost()
    add(cost, frames, fits=3)
    assert cost.nanos is None


def test_what_was_known_is_kept_while_frames_are_alike_and_follows_their_speed() -> None:
    cost = FittedCost()
    add(cost, PREFILL + DECODE)
    add(cost, [(2, 2)], fits=16 * HALF_LIFE_FRAMES // FRAMES_PER_FIT)
    assert cost.nanos == pytest.approx(COST, rel=0.01)
    add(cost, [(2, 2)], fits=8 * HALF_LIFE_FRAMES // FRAMES_PER_FIT, slowness=2.0)
    assert cost.nanos == pytest.approx([2 * nanos for nanos in COST], rel=0.02)


def test_a_service_that_becomes_slower_costs_more() -> None:
    cost = FittedCost()
    add(cost, DECODE)
    add(cost, DECODE, fits=8 * HALF_LIFE_FRAMES // FRAMES_PER_FIT, slowness=5.0)
    assert cost.nanos == pytest.approx([5 * nanos for nanos in COST], rel=0.02)


@settings(max_examples=100)
@given(st.data(), st.integers(0, 2**32))
def test_no_cost_is_ever_negative_and_no_other_way_to_leave_some_out_is_better(
    data: st.DataObject, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    inputs = generator.random((data.draw(st.integers(1, 8)), 3))
    targets = generator.normal(data.draw(st.sampled_from([-1.0, 0.0, 1.0])), 1.0, len(inputs))
    found = non_negative(inputs.T @ inputs, inputs.T @ targets)
    assert (found >= 0).all()
    error = ((inputs @ found - targets) ** 2).sum()
    for other in generator.exponential(1.0, (200, 3)) * (generator.random((200, 3)) < 0.7):
        assert error <= ((inputs @ other - targets) ** 2).sum() + 1e-6
