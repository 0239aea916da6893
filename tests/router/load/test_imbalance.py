import numpy as np
import pytest

from services.router.load.imbalance import active_excess, active_experts, imbalance


def test_imbalance_is_what_the_hottest_service_has_above_the_mean() -> None:
    # Mean 4: the hottest has half as much again; then all alike, then one service with everything.
    pairs = np.array([[6, 2, 4, 4], [4, 4, 4, 4], [16, 0, 0, 0]])
    assert imbalance(pairs).tolist() == [0.5, 0.0, 3.0]


def test_services_without_pairs_count_in_the_mean() -> None:
    assert imbalance(np.array([3, 3])) == 0.0
    assert imbalance(np.array([3, 3, 0])) == pytest.approx(0.5)  # 3 against a mean of 2


def test_a_layer_without_pairs_is_even() -> None:
    assert imbalance(np.zeros((2, 4), dtype=np.int64)).tolist() == [0.0, 0.0]


def test_the_mean_of_layers_is_not_the_imbalance_of_their_sum() -> None:
    # Each layer has its own hot service: summed up they look even, and every layer waits for one of
    # them.
    pairs = np.array([[3, 1], [1, 3]])
    assert imbalance(pairs).mean() == 0.5
    assert imbalance(pairs.sum(axis=0)) == 0.0


def test_an_expert_is_active_once_on_a_service_however_many_pairs_it_has() -> None:
    pairs = np.array([[5, 0, 1, 0], [0, 0, 0, 7]])  # [services, experts]
    assert active_experts(pairs).tolist() == [2, 1]


def test_the_fewest_active_experts_are_shared_out_evenly_and_rounded_up() -> None:
    even = np.array(
        [[1, 1, 0, 0], [0, 0, 1, 0]]
    )  # three experts on two services: two are the fewest
    uneven = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
    assert active_excess(np.stack([even, uneven])).tolist() == [1.0, 1.5]


def test_an_expert_that_two_services_compute_for_is_one_active_expert() -> None:
    # Two experts, both on both services: one each were enough.
    assert active_excess(np.ones((2, 2), dtype=np.int64)) == 2.0


def test_a_layer_without_active_experts_is_at_its_best() -> None:
    assert active_excess(np.zeros((2, 4), dtype=np.int64)) == 1.0
