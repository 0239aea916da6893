"""Costs are found again from samples, and never come out negative."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.planning.costs import Costs, Floats


def samples(fixed: float, expert: float, pair: float, noise: float = 0.0, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    active = rng.integers(1, 8, 200)
    pairs = active * rng.integers(1, 40, 200)
    nanos = fixed + expert * active + pair * pairs
    return np.column_stack([active, pairs, nanos * rng.normal(1, noise, 200)])


def test_what_samples_were_made_of_is_found_again() -> None:
    exact = Costs.fitted([samples(2e6, 1e6, 5e4), samples(0.0, 3e6, 1e4)])
    assert exact.fixed_nanos == pytest.approx([2e6, 0.0], abs=1.0)
    assert exact.expert_nanos == pytest.approx([1e6, 3e6])
    assert exact.pair_nanos == pytest.approx([5e4, 1e4])
    noisy = Costs.fitted([samples(2e6, 1e6, 5e4, noise=0.05)])
    assert noisy.expert_nanos == pytest.approx([1e6], rel=0.2)
    assert noisy.pair_nanos == pytest.approx([5e4], rel=0.1)


def test_a_service_without_samples_counts_as_the_mean_of_the_others() -> None:
    nothing = np.empty((0, 3))
    costs = Costs.fitted([samples(0.0, 1e6, 5e4), nothing, samples(0.0, 3e6, 1e4)])
    assert costs.expert_nanos[1] == pytest.approx(2e6)
    assert costs.pair_nanos[1] == pytest.approx(3e4)
    unknown = Costs.fitted([nothing, nothing])
    assert (unknown.fixed_nanos.tolist(), unknown.expert_nanos.tolist()) == ([0.0, 0.0], [0.0, 0.0])
    assert unknown.pair_nanos.tolist() == [1.0, 1.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_costs_are_never_negative_however_few_the_samples(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = Costs.fitted(
        [np.column_stack([rng.integers(1, 4, count), rng.integers(1, 9, count), rng.exponential(1e6, count)])]
    )
    for nanos in (costs.fixed_nanos, costs.expert_nanos, costs.pair_nanos):
        assert np.isfinite(nanos).all()
        assert (nanos >= 0).all()
