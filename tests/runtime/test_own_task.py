"""Work in a task of its own ends with its caller, and its caller's end is never lost."""

import asyncio

import pytest

from services.runtime.own_task import run_in_own_task


async def failing_group(waits: asyncio.Event, may_fail: asyncio.Event) -> None:
    async def fail() -> None:
        waits.set()
        await may_fail.wait()
        raise ValueError("it failed")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())


async def test_what_the_work_returns_or_raises_is_the_callers() -> None:
    assert await run_in_own_task(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ZeroDivisionError):
        await run_in_own_task(divide_by_zero())


async def divide_by_zero() -> float:
    return 1 / 0


async def test_a_cancellation_that_meets_a_failure_is_not_lost() -> None:
    waits, may_fail = asyncio.Event(), asyncio.Event()

    async def again_and_again() -> None:
        while True:
            try:
                await run_in_own_task(failing_group(waits, may_fail))
            except* ValueError:
                await asyncio.sleep(0)

    task = asyncio.create_task(again_and_again())
    await waits.wait()
    may_fail.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled()


async def test_the_work_is_cancelled_with_its_caller_and_has_ended_then() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    task = asyncio.create_task(run_in_own_task(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
