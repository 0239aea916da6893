"""What the requests of one call yield, in one: those of a batch run at the same time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from services.gateway.generation import Completed
from services.gateway.merging import merged
from services.gateway.outside import said_outside
from services.gateway.relay import Piece

Event = Piece | Completed
# With the number of the request that it is of.
Numbered = tuple[int, Event]
Run = AsyncGenerator[Event, None]
# Of a batch, before others have a turn of the loop: a long prompt takes its time to be checked.
BEGUN_AT_ONCE = 8


@asynccontextmanager
async def events_of(runs: Sequence[Run]) -> AsyncIterator[AsyncIterator[Numbered]]:
    """The events of all requests until each has ended; they run until the block ends at the latest.

    Raises what the first request fails with that does; the others end then.
    """
    numbered = [_numbered(number, run) for number, run in enumerate(runs)]
    async with aclosing(numbered[0] if len(numbered) == 1 else merged(numbered)) as events:
        yield events


async def _numbered(number: int, run: Run) -> AsyncGenerator[Numbered, None]:
    async with aclosing(run):
        for _ in range(number // BEGUN_AT_ONCE):
            await asyncio.sleep(0)
        with said_outside():
            async for event in run:
                yield number, event
