"""Several streams are read as one, and end as one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.gateway.merging import merged
from services.wire.errors import Unavailable


class Source:
    """A stream that gives what it is told to, and notes that it was closed."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[int | BaseException | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def read(self) -> AsyncGenerator[int, None]:
        try:
            while (event := await self.events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.closed.set()


async def test_events_come_as_they_are_there_and_the_last_stream_ends_all() -> None:
    one, other = Source(), Source()
    async with aclosing(merged([one.read(), other.read()])) as events:
        for source, number in ((other, 1), (one, 2), (other, 3)):
            source.events.put_nowait(number)
            assert await anext(events) == number
        one.events.put_nowait(None)
        other.events.put_nowait(4)
        assert await anext(events) == 4
        other.events.put_nowait(None)
        with pytest.raises(StopAsyncIteration):
            await anext(events)


class Panic(BaseException):
    """What compiled libraries raise is no Exception."""


@pytest.mark.parametrize(
    "error", [Unavailable("lost"), asyncio.CancelledError("lost"), Panic("lost")]
)
async def test_what_one_stream_raises_closes_the_others(error: BaseException) -> None:
    one, other = Source(), Source()
    one.events.put_nowait(1)
    other.events.put_nowait(error)
    async with aclosing(merged([one.read(), other.read()])) as events, asyncio.timeout(20):
        assert await anext(events) == 1
        with pytest.raises(type(error), match="lost"):
            await anext(events)
    assert one.closed.is_set()


async def test_a_reader_that_leaves_closes_all() -> None:
    sources = [Source() for _ in range(3)]
    for source in sources:
        for number in range(9):  # more than are ever taken in advance
            source.events.put_nowait(number)
    events = merged([source.read() for source in sources])
    await anext(events)
    await events.aclose()
    assert all(source.closed.is_set() for source in sources)
