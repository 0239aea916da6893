"""Who wants to write to a file whose pages experts are computed with is let, once they have copies
of their own.
"""

import asyncio
import logging
from collections.abc import Callable

from services.expert.mapped_slots import MappedSlots
from services.model.refusals import UnusableModel
from services.wire.errors import BadState

logger = logging.getLogger(__name__)

# So long a writer may wait before it is noticed.
POLL_SECONDS = 0.5


async def vacate_wanted(
    mapped: MappedSlots, stop_serving: Callable[[], None], poll_seconds: float = POLL_SECONDS
) -> None:
    """Vacate files that somebody wants to write to, for ever.

    Raises BadState after `stop_serving` when one was written to before: what is computed with it
    has changed. It takes a service that stood still as long as the system keeps a writer waiting.
    """
    while True:
        # In a thread: whoever copies a slot has the lock that long.
        for file in await asyncio.to_thread(mapped.wanted_files):
            logger.info("%s is to be written to: its experts get copies first", file.path)
            try:
                await asyncio.to_thread(mapped.vacate, file)
            except (UnusableModel, MemoryError, OSError) as error:
                stop_serving()
                raise BadState(
                    f"{file.path} was written to before its experts had copies: {error}"
                ) from error
        await asyncio.sleep(poll_seconds)
