"""A plan is carried out when it gains enough, and not soon after one that did not keep what it
promised.
"""

import pytest

from services.router.balance.hysteresis import MAX_WAITS, Hysteresis


def test_a_plan_has_to_gain_enough_by_every_load() -> None:
    hysteresis = Hysteresis(0.05, 30.0)
    assert hysteresis.is_worth([0.2, 0.05])
    assert not hysteresis.is_worth([0.2, 0.04])
    assert not hysteresis.is_worth([-0.2, 0.2])


def test_after_a_plan_nothing_is_done_for_a_while() -> None:
    hysteresis = Hysteresis(0.05, 30.0)
    assert hysteresis.seconds_left(0.0) == 0
    hysteresis.note_outcome(0.2, 0.2, now=100.0)
    assert [hysteresis.seconds_left(now) for now in (100.0, 110.0, 130.0, 200.0)] == [
        30.0,
        20.0,
        0.0,
        0.0,
    ]
    hysteresis.note_end(now=200.0)
    assert hysteresis.seconds_left(200.0) == 30.0


def test_the_wait_doubles_with_each_plan_that_fell_short_and_halves_with_each_that_did_not() -> (
    None
):
    hysteresis = Hysteresis(0.05, 30.0)
    waits = []
    for achieved in (0.09, -0.1, 0.0, 0.1, 0.3, 0.2, 0.2):
        hysteresis.note_outcome(0.2, achieved, now=0.0)
        waits.append(hysteresis.seconds_left(0.0))
    assert waits == [60.0, 120.0, 240.0, 120.0, 60.0, 30.0, 30.0]
    for _ in range(20):
        hysteresis.note_outcome(0.2, 0.0, now=0.0)
    assert hysteresis.wait_seconds == MAX_WAITS * 30.0


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 30.0), (0.5, 60.0), (1.0, 90.0)])
def test_who_failed_waits_for_a_time_of_its_own(draw: float, seconds: float) -> None:
    hysteresis = Hysteresis(0.05, 30.0)
    hysteresis.note_failure(0.0, draw)
    assert hysteresis.seconds_left(0.0) == seconds
