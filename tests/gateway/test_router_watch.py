"""How long a router may say nothing, learnt from how long it did."""

import asyncio

import pytest

from services.gateway.router_watch import (
    FACTOR,
    FLOOR_SECONDS,
    PATIENCE_HALF_LIFE_SECONDS,
    UNMEASURED_SECONDS,
    RouterWatch,
    TokenExpectation,
)
from services.wire.errors import Unavailable
from tests.clock import Clock


def test_a_router_has_a_multiple_of_what_as_many_tokens_took_it_before() -> None:
    expectation = TokenExpectation()
    assert expectation.seconds(8) == UNMEASURED_SECONDS
    expectation.observe(16, 1.6)
    assert expectation.seconds(16) == pytest.approx(FACTOR * 1.6)
    # Sizes not met: by the time for each token of the next smaller, or a whole larger one.
    assert expectation.seconds(1024) == pytest.approx(FACTOR * 102.4)
    assert expectation.seconds(1) == pytest.approx(FACTOR * 0.1 * 32)
    expectation.observe(2, 0.001)
    assert expectation.seconds(2) == FLOOR_SECONDS


def test_a_router_that_was_given_up_too_soon_has_more_time_for_a_while() -> None:
    clock = Clock(1000.0)
    expectation = TokenExpectation(clock)
    expectation.observe(2, 0.001)
    expectation.grow()
    assert expectation.seconds(2) == 2 * FLOOR_SECONDS
    clock.seconds += PATIENCE_HALF_LIFE_SECONDS
    assert expectation.seconds(2) == pytest.approx(1.5 * FLOOR_SECONDS)
    for _ in range(10):
        expectation.grow()
    assert expectation.seconds(2) == 4 * FLOOR_SECONDS


async def is_asked(watch: RouterWatch) -> bool:
    """Whether the router has been silent for so long that it is asked now; it answers."""
    asked = asyncio.Event()

    async def ask(seconds: float) -> None:
        asked.set()

    watching = asyncio.create_task(watch.run(ask, lambda: True))
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return asked.is_set()


async def test_a_prompt_that_came_meanwhile_counts_from_what_the_router_says_next() -> None:
    """Else a long one would count as computed in the rest of another one's step."""
    clock = Clock(1000.0)
    watch = RouterWatch("it", clock)
    watch.begin()
    watch.note_work(1)
    for _ in range(3):  # a step of one sequence, while a prompt comes and is given up
        clock.seconds += 0.01
        watch.note_work(4097)
        watch.hear(of_work=True)
        watch.note_work(1)
    watch.note_work(0)
    watch.note_work(4096)
    clock.seconds += 20.0  # of the 41 that as many tokens took, one by one
    assert not await is_asked(watch)
    clock.seconds += 200.0
    assert await is_asked(watch)


async def test_what_a_router_says_beside_its_work_shortens_no_measurement() -> None:
    clock = Clock(1000.0)
    watch = RouterWatch("it", clock)
    watch.begin()
    watch.note_work(1)
    clock.seconds += UNMEASURED_SECONDS
    assert await is_asked(watch)
    watch.hear(of_work=False)
    clock.seconds += 30.0
    watch.hear(of_work=True)
    watch.note_work(1)
    clock.seconds += FACTOR * (UNMEASURED_SECONDS + 29.0)
    assert not await is_asked(watch)
    clock.seconds += FACTOR * 2.0
    assert await is_asked(watch)


async def test_a_router_without_work_may_say_nothing() -> None:
    watch = RouterWatch("it")
    watch.begin()
    watch.note_work(1)
    watch.hear(of_work=True)
    watch.note_work(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5 * FLOOR_SECONDS):
            await watch.run(unanswered, lambda: True)


async def test_a_router_that_is_heard_while_it_is_asked_is_not_given_up() -> None:
    watch, num_asked = RouterWatch("it"), 0

    async def ask(seconds: float) -> None:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 1:
            watch.hear(of_work=True)
        raise Unavailable("no answer")

    watch.begin()
    watch.note_work(1)
    watch.hear(of_work=True)
    with pytest.raises(Unavailable, match="it says nothing any more, though it has work"):
        await watch.run(ask, lambda: True)
    assert num_asked == 2
    assert watch.has_given_up
    watch.begin()
    assert not watch.has_given_up


async def test_a_router_that_answers_is_waited_for_and_asked_again() -> None:
    watch, answered = RouterWatch("it"), asyncio.Semaphore(0)

    async def ask(seconds: float) -> None:
        answered.release()

    watch.begin()
    watch.note_work(1)
    watch.hear(of_work=True)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch.run(ask, lambda: True))
        for _ in range(2):
            await answered.acquire()
        assert not watch.has_given_up
        watching.cancel()


async def unanswered(seconds: float) -> None:
    raise Unavailable("no answer")
