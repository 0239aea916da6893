"""What a service is expected to take follows what it took."""

import pytest

from services.router.peers.pace import HALF_LIFE_NANOS, Pace
from tests.router.paces import end_frame, fitted_pace

FRAME, EXPERT, PAIR = 3000, 500, 20


def heard(num_pairs: int, round_trip: int, queue: int, compute: int) -> Pace:
    pace = Pace()
    pace.begin(num_pairs, 1)
    pace.end(num_pairs, 1, round_trip, queue, compute)
    return pace


def fitted() -> Pace:
    """Of a service whose frames waited as long as they were computed."""
    return fitted_pace(EXPERT, PAIR, frame=FRAME, queue_factor=1)


def test_nothing_is_known_before_the_first_answer() -> None:
    pace = Pace()
    pace.begin(4, 1)
    assert not pace.is_known
    pace.lose(4, 1)
    assert not pace.is_known
    assert pace.fit() is None


def test_the_first_answer_is_taken_whole_and_later_ones_in_part() -> None:
    pace = heard(10, 3000, 400, 600)
    assert pace.estimate(pace.heard) == (2000, 0, 0, 100, False)
    pace.begin(10, 2)
    pace.end(10, 2, 4000, 0, 3000)
    assert pace.estimate(pace.heard) == pytest.approx((1000, 0, 0, 120, False))


def test_a_quick_round_trip_counts_at_once_and_a_slow_one_little_by_little() -> None:
    pace = heard(10, 3000, 0, 1000)
    for round_trip, wire in ((2500, 1500), (3000, 1505)):
        pace.begin(10, 1)
        pace.end(10, 1, round_trip, 0, 1000)
        assert pace.estimate(pace.heard).wire == pytest.approx(wire)


def test_what_a_frame_costs_is_fitted_to_computation_and_estimated_with_the_queue() -> None:
    pace = fitted()
    assert pace.fit() == pytest.approx((FRAME, EXPERT, PAIR))
    for _ in range(100):
        end_frame(pace, 1, 4, (FRAME, EXPERT, PAIR), wire=1000, queue_factor=2)
    assert pace.fit() == pytest.approx((FRAME, EXPERT, PAIR))
    assert pace.estimate(pace.heard) == pytest.approx(
        (1000, 3 * FRAME, 3 * EXPERT, 3 * PAIR, True), rel=1e-3
    )


@pytest.mark.parametrize("pace", [heard(10, 3000, 0, 1000), fitted()])
def test_what_is_on_the_way_is_waited_for(pace: Pace) -> None:
    estimate = pace.estimate(pace.heard)
    assert pace.waiting_nanos(estimate) == 0
    pace.begin(5, 2)
    pace.begin(7, 1)
    assert (
        pace.waiting_nanos(estimate)
        == 2 * estimate.frame + 3 * estimate.expert + 12 * estimate.pair
    )
    pace.lose(7, 1)
    assert pace.waiting_nanos(estimate) == estimate.frame + 2 * estimate.expert + 5 * estimate.pair


def test_a_service_that_says_it_took_longer_than_the_round_trip_has_no_negative_wire() -> None:
    pace = heard(1, 10, 10, 20)
    assert pace.estimate(pace.heard) == (0, 0, 0, 30, False)


@pytest.mark.parametrize("pace", [heard(1, 3000, 0, 1000), fitted()])
def test_what_was_not_heard_again_is_forgotten_by_and_by(pace: Pace) -> None:
    *now, _ = pace.estimate(pace.heard)
    *later, _ = pace.estimate(pace.heard + int(HALF_LIFE_NANOS))
    assert later == pytest.approx([nanos / 2 for nanos in now])
    assert pace.estimate(pace.heard - 5) == pace.estimate(pace.heard)
