"""The event loop that every service runs on: libuv's where it is installed, else the standard
library's.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]

try:
    import uvloop
except ImportError:  # it is not made for every platform
    NEW_LOOP: NewLoop = asyncio.new_event_loop
else:
    NEW_LOOP = uvloop.new_event_loop


def run_in_loop(main: Coroutine[Any, Any, None], new_loop: NewLoop = NEW_LOOP) -> None:
    """Run `main` to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)
