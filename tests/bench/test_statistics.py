"""The arithmetic of the benches."""

import pytest

from bench.harness.statistics import Spread, ratio_of, spread_of


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert spread_of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)


def test_one_sample_is_its_own_spread() -> None:
    assert spread_of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


def test_nothing_has_no_spread() -> None:
    with pytest.raises(ValueError, match="no samples"):
        spread_of([])


def test_a_spread_changes_its_unit() -> None:
    assert spread_of([1.0, 2.0, 3.0]).scaled(1e3) == Spread(2000.0, 1500.0, 2500.0, 3)


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was ten times slower in the second round, for both of them.
    assert ratio_of([2.0, 20.0], [1.0, 10.0]) == Spread(2.0, 2.0, 2.0, 2)


def test_ratios_need_as_many_of_each() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio_of([1.0, 2.0], [1.0])
