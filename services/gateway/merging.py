"""Several streams of events as one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from services.runtime.boundary import PASSED_ON

Event = TypeVar("Event")


@dataclass(frozen=True)
class _End:
    """Nothing follows of a stream; what it raised, if it did."""

    error: BaseException | None = None


async def merged(streams: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
    """The events of all of them as they come; it ends with the last one.

    What the first one that fails raises ends all; so does a consumer that leaves. Of each stream
    one event at most waits to be read.
    """
    events: asyncio.Queue[Event | _End] = asyncio.Queue(len(streams))
    # No group of tasks: it would cancel whoever reads this while they do something else.
    tasks = [asyncio.create_task(_pass_on(stream, events)) for stream in streams]
    try:
        for _ in streams:
            while not isinstance(event := await events.get(), _End):
                yield event
            if event.error is not None:
                raise event.error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    stream: AsyncGenerator[Event, None], events: "asyncio.Queue[Event | _End]"
) -> None:
    end = _End()
    try:
        async with aclosing(stream):
            async for event in stream:
                await events.put(event)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        end = _End(error)  # not this stream was cancelled, but what it waited for
    except PASSED_ON:
        raise
    except BaseException as error:  # noqa: BLE001 -- the boundary of one stream: who reads all of them raises it
        end = _End(error)
    await events.put(end)
