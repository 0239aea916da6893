"""Frames to a service, counted for whoever watches."""

from services.router.engine.token_gaps import BOUNDS, TokenGaps
from services.router.peers.tally import REMEMBERED, Tally


def test_the_median_is_that_of_the_latest_round_trips() -> None:
    tally = Tally()
    assert tally.median_wire_nanos == 0
    for _ in range(REMEMBERED):
        tally.add(4, 900, 50, 50)
    for _ in range(REMEMBERED // 2 + 1):
        tally.add(4, 200, 50, 50)
    assert tally.median_wire_nanos == 100
    assert (tally.frames, tally.pairs) == (REMEMBERED * 3 // 2 + 1, 4 * tally.frames)
    assert (tally.queue_nanos, tally.compute_nanos) == (50 * tally.frames, 50 * tally.frames)


def test_a_reply_that_came_sooner_than_it_was_computed_took_no_time_on_the_wire() -> None:
    tally = Tally()
    tally.add(1, 10, 20, 30)
    assert tally.median_wire_nanos == 0


def test_gaps_are_counted_between_steps_of_one_lane() -> None:
    gaps = TokenGaps()
    gaps.note(0, 1_000_000, 0)
    gaps.note(1, 2_000_000, 5)  # the first step of its lane is after nothing
    gaps.note(0, 1_000_000 + BOUNDS[3], 2)
    gaps.note(0, 1_000_001 + 2 * BOUNDS[3], 1)
    assert list(gaps.buckets()) == [(BOUNDS[3], 2), (BOUNDS[4], 1)]


def test_a_gap_beyond_all_bounds_counts_for_the_last() -> None:
    gaps = TokenGaps()
    gaps.note(0, 0, 1)
    gaps.note(0, 10 * BOUNDS[-1], 3)
    assert list(gaps.buckets()) == [(BOUNDS[-1], 3)]
