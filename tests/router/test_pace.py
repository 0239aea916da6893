"""What a service is expected to take follows what it took."""

import pytest

from services.router.pace import HALF_LIFE_NANOS, Pace


def heard(num_pairs: int, round_trip: int, server: int) -> Pace:
    pace = Pace()
    pace.begin(num_pairs)
    pace.end(num_pairs, round_trip, server)
    return pace


def test_nothing_is_known_before_the_first_answer() -> None:
    pace = Pace()
    pace.begin(4)
    assert not pace.is_known
    pace.lose(4)
    assert not pace.is_known


def test_the_first_answer_is_taken_whole_and_later_ones_in_part() -> None:
    pace = heard(10, round_trip=3000, server=1000)
    assert pace.estimate(pace.heard) == (2000, 100)
    pace.begin(10)
    pace.end(10, 4000, 3000)
    assert pace.estimate(pace.heard) == pytest.approx((1900, 120))


def test_what_is_on_the_way_is_waited_for() -> None:
    pace = heard(10, round_trip=3000, server=1000)
    pace.begin(5)
    assert pace.in_flight_pairs == 5
    assert pace.expected_nanos(20) - pace.expected_nanos(0) == pytest.approx(2000, rel=0.01)
    before = pace.expected_nanos(0)
    pace.lose(5)
    assert before - pace.expected_nanos(0) == pytest.approx(500, rel=0.01)


def test_a_service_that_says_it_took_longer_than_the_round_trip_has_no_negative_wire() -> None:
    pace = heard(1, round_trip=10, server=30)
    assert pace.estimate(pace.heard) == (0, 30)


def test_what_was_not_heard_again_is_forgotten_by_and_by() -> None:
    pace = heard(1, round_trip=3000, server=1000)
    assert pace.estimate(pace.heard + int(HALF_LIFE_NANOS)) == (1000, 500)
    assert pace.estimate(pace.heard - 5) == (2000, 1000)
