"""One operation at a time, known by id, followed by whoever likes to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.router.hosting.operations import (
    MAX_NAME_CHARACTERS,
    MAX_REMEMBERED,
    MAX_WAITING,
    Operation,
    OperationFailed,
    OperationProgress,
    Operations,
    Phase,
)
from services.router.planning.goals import Even, Without
from services.wire.errors import BadState, InvalidRequest, Overloaded, ServingError


class Work:
    """Ends operations when the test says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.refusal: Exception | None = None
        self.failure: Exception | None = None
        self.may_end = asyncio.Event()

    def check(self, operation: Operation) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def carry_out(self, operation: Operation) -> None:
        self.begun.append(operation.name)
        await self.may_end.wait()
        if self.failure is not None:
            raise self.failure
        operation.report(OperationProgress(Phase.DONE, 2, 2))


@asynccontextmanager
async def running(work: Work) -> AsyncIterator[Operations]:
    operations = Operations(work.carry_out, work.check, lambda: None)
    task = asyncio.create_task(operations.run())
    await asyncio.sleep(0)
    try:
        yield operations
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def followed(operation: Operation) -> list[OperationProgress]:
    async with asyncio.timeout(10):
        return [progress async for progress in operation.follow()]


async def test_everyone_who_follows_sees_the_end() -> None:
    work = Work()
    async with running(work) as operations:
        operation = operations.begin("", Even())
        following = [asyncio.create_task(followed(operation)) for _ in range(2)]
        await asyncio.sleep(0)
        work.may_end.set()
        for told in await asyncio.gather(*following):
            assert told == [
                OperationProgress(Phase.LOADING, 0, 0),
                OperationProgress(Phase.DONE, 2, 2),
            ]
        assert operations.current is None
        assert operations.num_ended == {"done": 1}


async def test_operations_are_carried_out_in_the_order_in_which_they_were_asked_for() -> None:
    work = Work()
    async with running(work) as operations:
        first = operations.begin("first", Even())
        second, third = operations.begin("second", Even()), operations.begin("third", Even())
        assert second.progress.phase is third.progress.phase is Phase.WAITING
        assert operations.begin("second", Even()) is second
        await asyncio.sleep(0)
        assert (work.begun, operations.current) == (["first"], first)
        with pytest.raises(BadState, match="operation first is under way"):
            operations.begin("own", Even(), is_own=True)
        work.may_end.set()
        assert [told.phase for told in await followed(third)][-1] is Phase.DONE
        assert work.begun == ["first", "second", "third"]
        assert operations.current is None


async def test_what_cannot_be_done_any_more_when_its_turn_comes_fails_and_the_next_goes_on() -> (
    None
):
    work = Work()
    async with running(work) as operations:
        operations.begin("first", Even())
        second = operations.begin("second", Even())
        work.refusal = Overloaded("memory for 3")
        work.may_end.set()
        with pytest.raises(Overloaded, match="memory for 3"):
            await followed(second)
        work.refusal = None
        assert (await followed(operations.begin("third", Even())))[-1].phase is Phase.DONE
        assert work.begun == ["first", "third"]


async def test_no_more_operations_wait_than_a_few() -> None:
    work = Work()
    async with running(work) as operations:
        for number in range(1 + MAX_WAITING):
            operations.begin(str(number), Even())
        with pytest.raises(Overloaded, match=f"{MAX_WAITING} operations wait for operation 0"):
            operations.begin("one more", Even())


async def test_one_that_an_urgent_one_waits_for_hurries() -> None:
    async with running(Work()) as operations:
        first = operations.begin("first", Even())
        operations.begin("second", Even())
        assert not first.is_waited_for
        operations.begin("third", Without("a:1"))
        assert first.is_waited_for


async def test_one_of_the_routers_own_that_gives_way_before_it_began_has_ended() -> None:
    work = Work()
    async with running(work) as operations:
        own = operations.begin("own", Even(), is_own=True)
        asked = operations.begin("asked", Without("a:1"))
        assert own.has_ended
        work.may_end.set()
        assert (await followed(asked))[-1].phase is Phase.DONE
        assert work.begun == ["asked"]


async def test_an_operation_of_the_routers_own_gives_way_to_one_that_was_asked_for() -> None:
    work = Work()
    async with running(work) as operations:
        own = operations.begin("own", Even(), is_own=True)
        await asyncio.sleep(0)
        asked = operations.begin("asked", Without("a:1"))
        work.may_end.set()
        assert (await followed(asked))[-1].phase is Phase.DONE
        with pytest.raises(OperationFailed, match="gave way"):
            await followed(own)
        assert work.begun == ["own", "asked"]


async def test_an_operation_that_was_refused_is_not_known() -> None:
    work = Work()
    async with running(work) as operations:
        work.refusal = Overloaded("memory for 3")
        with pytest.raises(Overloaded, match="memory for 3"):
            operations.begin("move", Even())
        assert operations.current is None
        work.refusal = None
        work.may_end.set()
        assert (await followed(operations.begin("move", Without("a:1"))))[-1].phase is Phase.DONE


async def test_one_that_failed_tells_why_and_is_begun_anew_when_called_again() -> None:
    work = Work()
    work.failure = OperationFailed("a:1 was lost")
    work.may_end.set()
    async with running(work) as operations:
        failed = operations.begin("move", Even())
        with pytest.raises(OperationFailed, match="a:1 was lost"):
            await followed(failed)
        work.failure = None
        assert (await followed(operations.begin("move", Even())))[-1].phase is Phase.DONE
        assert work.begun == ["move", "move"]
        assert operations.num_ended == {"failed": 1, "done": 1}


async def test_the_last_operations_are_remembered_and_earlier_ones_are_not() -> None:
    work = Work()
    work.may_end.set()
    async with running(work) as operations:
        for number in range(MAX_REMEMBERED + 1):
            await followed(operations.begin(str(number), Even()))
        await followed(operations.begin("1", Even()))
        assert work.begun.count("1") == 1
        await followed(operations.begin("0", Even()))
        assert work.begun.count("0") == 2


async def test_an_operation_that_fails_unforeseen_ends_no_other() -> None:
    work = Work()
    work.failure = KeyError("secret")
    work.may_end.set()
    async with running(work) as operations:
        with pytest.raises(
            ServingError, match="operation first failed; the service's log says why"
        ):
            await followed(operations.begin("first", Even()))
        work.failure = None
        assert (await followed(operations.begin("second", Even())))[-1].phase is Phase.DONE
        assert operations.num_ended == {"failed": 1, "done": 1}


async def test_an_id_that_is_too_long_is_refused() -> None:
    async with running(Work()) as operations:
        with pytest.raises(
            InvalidRequest,
            match=f"operation_id has 5000 characters; the limit is {MAX_NAME_CHARACTERS}",
        ):
            operations.begin("x" * 5000, Even())
