"""Awaiting inside a synchronous function."""

import asyncio
import contextvars

import pytest

from services.router.engine.greenlets import await_, current_state, run_awaiting

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def test_a_synchronous_function_awaits_and_returns() -> None:
    assert await run_awaiting(lambda: await_(double(3)) + await_(double(4)), None) == 14


async def test_lanes_interleave_and_each_sees_its_own_state() -> None:
    order: list[object] = []

    def work() -> None:
        for _ in range(3):
            order.append(current_state())
            await_(asyncio.sleep(0))

    await asyncio.gather(run_awaiting(work, "a"), run_awaiting(work, "b"))
    assert order == ["a", "b"] * 3
    assert current_state() is None


async def test_an_error_of_the_awaitable_is_raised_where_it_was_awaited() -> None:
    async def fail() -> None:
        raise ValueError("no")

    def work() -> str:
        try:
            await_(fail())
        except ValueError as error:
            return str(error)
        return "not raised"

    assert await run_awaiting(work, None) == "no"


async def test_cancellation_runs_the_finally_blocks_of_the_function() -> None:
    cleaned = asyncio.Event()
    waiting = asyncio.Event()

    async def hang() -> None:
        waiting.set()
        await asyncio.Event().wait()

    def work() -> None:
        try:
            await_(hang())
        finally:
            cleaned.set()

    task = asyncio.create_task(run_awaiting(work, None))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


async def test_the_context_reaches_the_function() -> None:
    variable.set("span")
    assert await run_awaiting(variable.get, None) == "span"


async def test_awaiting_outside_of_a_step_is_refused() -> None:
    coroutine = double(1)
    with pytest.raises(RuntimeError, match="below run_awaiting"):
        await_(coroutine)
    coroutine.close()
