"""`python -m bench.rig.nursery`: forks servers of a bench from a process that has imported
everything, so that thirty-two of them start in seconds.

From stdin comes a pickled (serve, arguments). On stdout goes a line of JSON for each server that
serves, its number, process and port, and null when one has ended. All end when stdin does.
"""

import asyncio
import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeAlias

from services.runtime.allocator import keep_freed_memory
from services.runtime.event_loop import run_in_loop
from services.runtime.garbage import set_aside_what_stays

Serve: TypeAlias = Callable[[Any], AbstractAsyncContextManager[int]]
"""Serves while its block runs and yields the port; a function of a module, since it is called in
another process.
"""

STDIN, STDOUT, STDERR = range(3)


def main() -> None:
    """Fork the servers, and stay until all of them have ended."""
    lines = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)  # for whatever else is printed here
    serve, arguments = pickle.load(sys.stdin.buffer)
    for number, argument in enumerate(arguments):
        if not os.fork():
            _live(serve(argument), number, lines)
    for _ in arguments:
        os.wait()
        _say(lines, None)


def _live(serving: AbstractAsyncContextManager[int], number: int, lines: int) -> None:
    """A server's life, at the end of which its process ends."""
    try:
        keep_freed_memory()  # as a service does
        run_in_loop(_serve(serving, number, lines))
    except BaseException:  # noqa: BLE001 -- the boundary of a process, which says why it ends
        traceback.print_exc()
    finally:
        os._exit(0)  # the interpreter would take torch apart for seconds


async def _serve(serving: AbstractAsyncContextManager[int], number: int, lines: int) -> None:
    left = asyncio.Event()
    # It is readable when its other end is gone, however the bench ended.
    asyncio.get_running_loop().add_reader(STDIN, left.set)
    async with serving as port:
        set_aside_what_stays()
        _say(lines, (number, os.getpid(), port))
        await left.wait()


def _say(lines: int, what: object) -> None:
    """One write, so that lines of several processes do not mix; nobody may be left to read it."""
    with suppress(BrokenPipeError):
        os.write(lines, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
