"""The arithmetic of `moesaic bench`, against cases computed by hand."""

import pytest

from services.cli.bench.statistics import (
    Distribution,
    distribution_of,
    median,
    per_second,
    percentile,
    token_intervals,
)


def test_percentiles_lie_linearly_between_neighbours() -> None:
    assert percentile([10, 20, 30, 40], 50) == 25
    assert percentile([10, 20, 30, 40], 90) == pytest.approx(37)
    assert percentile([10, 20, 30, 40], 0) == 10
    assert percentile([10, 20, 30, 40], 100) == 40
    assert percentile([40, 10, 30, 20], 90) == percentile([10, 20, 30, 40], 90)


def test_every_percentile_of_one_sample_is_that_sample() -> None:
    assert distribution_of([3.0]) == Distribution(1, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0)


def test_a_distribution_does_not_depend_on_the_order_of_its_samples() -> None:
    samples = [float(number) for number in range(1, 102)]  # 1 to 101: the pth percentile is p + 1
    backwards = distribution_of(samples[::-1])
    assert backwards == distribution_of(samples)
    assert backwards == Distribution(101, 51.0, 51.0, 91.0, 96.0, 100.0, 101.0)


def test_no_samples_have_no_distribution() -> None:
    assert distribution_of([]) is None
    assert median([]) == 0


def test_the_median_of_an_even_number_lies_in_the_middle() -> None:
    assert median([4, 1, 3, 2]) == 2.5


def test_single_tokens_have_the_time_since_the_one_before() -> None:
    assert token_intervals([100, 130, 150], [1, 1, 1]) == [30, 20]


def test_tokens_that_come_together_share_the_time_since_the_message_before() -> None:
    assert token_intervals([100, 130, 190], [1, 3, 2]) == [10, 10, 10, 30, 30]


def test_tokens_that_come_with_the_first_one_waited_for_nothing() -> None:
    assert token_intervals([100, 130], [3, 1]) == [0, 0, 30]


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [4, 1, 2, 5], [1, 7, 1, 1]])
def test_intervals_add_up_to_the_time_from_the_first_token_to_the_last(counts: list[int]) -> None:
    arrivals = [5, 17, 17, 98]
    intervals = token_intervals(arrivals, counts)
    assert sum(intervals) == pytest.approx(93)
    assert len(intervals) == sum(counts) - 1


def test_a_response_without_a_second_token_has_no_interval() -> None:
    assert token_intervals([], []) == []
    assert token_intervals([100], [1]) == []


def test_a_rate_of_no_time_is_nought() -> None:
    assert per_second(5, 2) == 2.5
    assert per_second(5, 0) == 0
