"""Work whose failures are handled by somebody who must hear of a cancellation, too."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run_in_own_task(work: Coroutine[Any, Any, Result]) -> Result:
    """Do `work` in a task of its own, which is cancelled with the caller and has ended when this
    returns.

    A task group of Python 3.11 drops a cancellation that meets the failure of one of its own tasks.
    A loop that handles such failures and goes on, by connecting again say, would then never end;
    with the group in another task it does.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    finally:
        if task.cancel():
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen, though a cancelled caller does not raise it
    return task.result()
