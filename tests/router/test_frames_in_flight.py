"""One timer gives up exactly the frames that are due, in whatever order their deadlines lie."""

import asyncio
import time

import pytest

from services.router.peers.frame_lost import FrameLost
from services.router.peers.frames_in_flight import FrameInFlight, FramesInFlight


def begin(frames: FramesInFlight[str], seconds: float) -> "asyncio.Future[str]":
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    frames.begin(
        FrameInFlight(len(frames), b"", answered, 1, 1, time.perf_counter_ns(), int(seconds * 1e9))
    )
    return answered


def frames_in_flight(lost: list[FrameInFlight[str]], hung: asyncio.Event) -> FramesInFlight[str]:
    return FramesInFlight("a:1", lost.append, lambda _: hung.set())


async def test_a_later_frame_with_an_earlier_deadline_is_given_up_first() -> None:
    lost: list[FrameInFlight[str]] = []
    hung = asyncio.Event()
    frames = frames_in_flight(lost, hung)
    patient = begin(frames, 60)
    with pytest.raises(FrameLost, match="a:1 did not answer a frame within 30 ms") as given_up:
        await begin(frames, 0.03)
    assert given_up.value.reason == "deadline"
    assert hung.is_set()
    assert not patient.done()
    assert len(frames) == 1
    frames.fail_all(FrameLost("the stream broke", "broken"))
    with pytest.raises(FrameLost, match="the stream broke"):
        await patient
    assert [frame.remaining_nanos for frame in lost] == [30_000_000, 60_000_000_000]


async def test_a_frame_is_given_up_though_the_timer_was_set_for_one_that_was_answered() -> None:
    frames = frames_in_flight([], asyncio.Event())
    begin(frames, 0.02)
    waiting = begin(frames, 0.05)
    assert frames.end(0) is not None
    with pytest.raises(FrameLost, match="within 50 ms"):
        await waiting
    assert len(frames) == 0


async def test_a_frame_that_was_given_up_is_not_found_again() -> None:
    frames = frames_in_flight([], asyncio.Event())
    with pytest.raises(FrameLost):
        await begin(frames, 0.02)
    assert frames.end(0) is None


async def test_a_busy_loop_gives_a_frame_as_much_time_again_as_it_was_busy_and_only_once() -> None:
    frames = frames_in_flight([], asyncio.Event())
    answered = begin(frames, 0.02)
    time.sleep(0.03)  # noqa: ASYNC251 -- another lane computes
    await asyncio.sleep(0)  # the timer fires
    assert len(frames) == 1
    time.sleep(0.05)  # noqa: ASYNC251
    with pytest.raises(FrameLost):
        await answered
