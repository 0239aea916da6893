"""A reply that lay ready while another lane computed is dated to when it came, not to when it was
read.
"""

import asyncio
import time

from services.router.engine.greenlets import run_awaiting
from services.router.times.arrivals import LOOP, PASSING_NANOS, Busy, ReplyArrivals

MILLI = 1_000_000


def learnt(busy: Busy, wire: int) -> ReplyArrivals:
    """What knows from one reply, read by an idle loop, that the wire takes `wire`."""
    arrivals = ReplyArrivals(busy)
    read = 100 * MILLI + 5 * MILLI + wire
    assert (
        arrivals.date(sent=100 * MILLI, read=read, server_nanos=5 * MILLI, num_bytes=4096) == read
    )
    return arrivals


def date(arrivals: ReplyArrivals, *, sent: int, read: int) -> int:
    return arrivals.date(sent=sent, read=read, server_nanos=5 * MILLI, num_bytes=4096)


def test_a_reply_read_right_after_another_lane_is_dated_back_by_what_the_wire_takes() -> None:
    busy = Busy()
    arrivals = learnt(busy, wire=2 * MILLI)
    busy.extend(1_001 * MILLI, 1_050 * MILLI)
    assert date(arrivals, sent=1_000 * MILLI, read=1_050 * MILLI + 1) == 1_007 * MILLI


def test_a_reply_is_not_dated_back_beyond_the_stretch_of_computing() -> None:
    busy = Busy()
    arrivals = learnt(busy, wire=2 * MILLI)
    busy.extend(1_020 * MILLI, 1_050 * MILLI)
    assert date(arrivals, sent=1_000 * MILLI, read=1_050 * MILLI + 1) == 1_020 * MILLI


def test_a_reply_that_cannot_have_come_during_the_stretch_came_when_it_was_read() -> None:
    busy = Busy()
    arrivals = learnt(busy, wire=2 * MILLI)
    busy.extend(1_000 * MILLI, 1_006 * MILLI)
    read = 1_006 * MILLI + PASSING_NANOS // 2
    assert date(arrivals, sent=1_000 * MILLI, read=read) == read


def test_without_a_reply_to_an_idle_loop_nothing_is_guessed() -> None:
    busy = Busy()
    busy.extend(1_000 * MILLI, 1_050 * MILLI)
    read = 1_050 * MILLI + 1
    assert date(ReplyArrivals(busy), sent=1_000 * MILLI, read=read) == read


def test_sizes_are_learnt_apart() -> None:
    busy = Busy()
    arrivals = learnt(busy, wire=2 * MILLI)
    busy.extend(1_000 * MILLI, 1_050 * MILLI)
    read = 1_050 * MILLI + 1
    assert arrivals.date(sent=1_000 * MILLI, read=read, server_nanos=0, num_bytes=1 << 20) == read


def test_stretches_with_only_a_passing_moment_between_are_one() -> None:
    busy = Busy()
    busy.extend(10 * MILLI, 20 * MILLI)
    busy.extend(20 * MILLI + PASSING_NANOS, 30 * MILLI)
    assert (busy.began, busy.ended) == (10 * MILLI, 30 * MILLI)
    busy.extend(40 * MILLI, 41 * MILLI)
    assert (busy.began, busy.ended) == (40 * MILLI, 41 * MILLI)


async def test_computing_a_step_is_noted_and_awaiting_is_not() -> None:
    started = time.perf_counter_ns()
    await run_awaiting(lambda: None, None)
    assert LOOP.ended >= started
    ended = LOOP.ended
    await asyncio.sleep(0)
    assert LOOP.ended == ended
