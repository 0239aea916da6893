"""How far something is, in words."""

from services.runtime.progress import Due, Progress
from tests.clock import Clock

GIGABYTE = 10**9


def test_progress_says_how_many_of_how_many_how_fast_and_how_long_yet() -> None:
    clock = Clock()
    progress = Progress(6 * GIGABYTE, now=clock)
    assert str(progress) == "0.0 of 6.0 GB"
    clock.seconds += 4
    progress.at(2 * GIGABYTE)
    assert str(progress) == "2.0 of 6.0 GB, 500 MB/s, 8 s left"
    progress.at(6 * GIGABYTE)
    assert progress.is_done
    assert str(progress) == "6.0 of 6.0 GB"


def test_the_rate_leaves_out_what_was_there_before() -> None:
    clock = Clock()
    progress = Progress(3_000_000, 1_000_000, now=clock)
    clock.seconds += 1
    assert str(progress) == "1.0 of 3.0 MB"
    progress.at(2_000_000)
    assert str(progress) == "2.0 of 3.0 MB, 1 MB/s, 1 s left"


def test_a_total_that_proves_too_small_grows() -> None:
    progress = Progress(1000)
    progress.at(2000)
    assert (progress.total_bytes, progress.is_done) == (2000, True)


def test_what_is_due_is_due_once_in_a_while() -> None:
    clock = Clock()
    due = Due(5.0, now=clock)
    assert not due.is_due()
    clock.seconds += 5
    assert [due.is_due(), due.is_due()] == [True, False]
    clock.seconds += 12
    assert [due.is_due(), due.is_due()] == [True, False]
