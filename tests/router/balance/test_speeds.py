"""Services cost alike but for how fast they are, whatever their fits say of how a frame's time
divides.
"""

import numpy as np
import pytest

from services.router.balance.speeds import DEAD_BAND, UNKNOWN, costs_of
from services.router.load.load import ExpertLoad

# Of four services each has two active experts and five pairs a layer.
LOAD = ExpertLoad(np.full((3, 8), 2.5), np.ones((3, 8)))


def test_without_any_fit_an_expert_is_worth_some_tens_of_rows() -> None:
    costs = costs_of([None] * 4, LOAD)
    assert np.stack([costs.fixed_nanos, costs.expert_nanos, costs.pair_nanos])[
        :, 3
    ].tolist() == list(UNKNOWN)


def test_a_service_without_a_fit_is_as_the_others_are() -> None:
    costs = costs_of([(10.0, 5.0, 1.0), None, (10.0, 5.0, 1.0), None], LOAD)
    for nanos, expected in zip(
        (costs.fixed_nanos, costs.expert_nanos, costs.pair_nanos), (10, 5, 1), strict=True
    ):
        assert nanos.tolist() == pytest.approx([expected] * 4)


def test_fits_that_divide_the_same_time_otherwise_are_the_same_costs() -> None:
    costs = costs_of([(0.0, 10.0, 0.0), (0.0, 0.0, 4.0), (20.0, 0.0, 0.0), (10.0, 0.0, 2.0)], LOAD)
    for nanos in (costs.fixed_nanos, costs.expert_nanos, costs.pair_nanos):
        assert nanos.tolist() == pytest.approx([nanos[0]] * 4)
    assert costs.fixed_nanos[0] + 2 * costs.expert_nanos[0] + 5 * costs.pair_nanos[
        0
    ] == pytest.approx(20.0)


def test_small_differences_are_none_and_great_ones_count() -> None:
    costs = costs_of([(0.0, 0.0, 1.0), (0.0, 0.0, 1.03), (0.0, 0.0, 0.97), (0.0, 0.0, 4.0)], LOAD)
    *alike, slow = costs.pair_nanos.tolist()
    assert alike == pytest.approx([alike[0]] * 3)
    assert slow / alike[0] == pytest.approx(4.0 / 1.015 * np.exp(-DEAD_BAND))
