"""What the requests of one call yield, in one: those of a batch run at the same time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from services.gateway.generation import Completed
from services.gateway.outside import said_outside
from services.gateway.relay import Piece

Event = Piece | Completed
# With the number of the request that it is of.
Numbered = tuple[int, Event]
Run = AsyncGenerator[Event, None]
# Of a batch, until the client has read them; its requests wait for it.
MAX_UNREAD = 256


@asynccontextmanager
async def events_of(runs: Sequence[Run]) -> AsyncIterator[AsyncIterator[Numbered]]:
    """The events of all requests until each has ended; they run until the block ends at the latest.

    Raises what a request fails with, within a group where there are several: the others end then.
    """
    if len(runs) == 1:
        async with aclosing(_alone(runs[0])) as events:
            yield events
        return
    events_read: asyncio.Queue[Numbered | None] = asyncio.Queue(MAX_UNREAD)
    async with asyncio.TaskGroup() as tasks:
        feeding = [
            tasks.create_task(_feed(number, run, events_read)) for number, run in enumerate(runs)
        ]
        async with aclosing(_until_all_ended(events_read, len(runs))) as events:
            yield events
        for task in feeding:
            task.cancel()


async def _alone(run: Run) -> AsyncGenerator[Numbered, None]:
    async with aclosing(run):
        with said_outside():
            async for event in run:
                yield 0, event


async def _feed(number: int, run: Run, events: asyncio.Queue[Numbered | None]) -> None:
    async with aclosing(run):
        with said_outside():
            async for event in run:
                await events.put((number, event))
    await events.put(None)


async def _until_all_ended(
    events: asyncio.Queue[Numbered | None], num_runs: int
) -> AsyncGenerator[Numbered, None]:
    while num_runs:
        event = await events.get()
        if event is None:
            num_runs -= 1
        else:
            yield event
