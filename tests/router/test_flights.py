"""One timer gives up exactly the frames that are due, in whatever order their deadlines lie."""

import asyncio
import time

import pytest

from services.router.flights import Flight, Flights
from services.wire.errors import Unavailable


def begin(flights: Flights[str], seconds: float) -> "asyncio.Future[str]":
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    flights.begin(Flight(answered, 1, time.perf_counter_ns(), int(seconds * 1e9)))
    return answered


async def test_a_later_frame_with_an_earlier_deadline_is_given_up_first() -> None:
    hung = asyncio.Event()
    flights: Flights[str] = Flights("a:1", hung.set)
    patient = begin(flights, 60)
    with pytest.raises(Unavailable, match="a:1 did not answer a frame within 30 ms"):
        await begin(flights, 0.03)
    assert hung.is_set()
    assert not patient.done()
    assert len(flights) == 1
    flights.fail_all(Unavailable("the stream broke"))
    with pytest.raises(Unavailable, match="the stream broke"):
        await patient


async def test_a_frame_is_given_up_though_the_timer_was_set_for_one_that_was_answered() -> None:
    flights: Flights[str] = Flights("a:1", lambda: None)
    begin(flights, 0.02)
    waiting = begin(flights, 0.05)
    assert flights.end(0) is not None
    with pytest.raises(Unavailable, match="within 50 ms"):
        await waiting
    assert len(flights) == 0


async def test_a_frame_that_was_given_up_is_not_found_again() -> None:
    flights: Flights[str] = Flights("a:1", lambda: None)
    with pytest.raises(Unavailable):
        await begin(flights, 0.02)
    assert flights.end(0) is None
