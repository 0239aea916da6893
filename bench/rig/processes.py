"""Processes of a bench: services as operators start them, servers of the bench's own, and the CPU
time they take.
"""

import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bench.harness.failure import BenchFailed
from services.cli.child import Child
from services.cli.members import LOOPBACK, Member
from services.runtime.allocator import keep_freed_memory
from services.runtime.event_loop import run_in_loop
from services.runtime.garbage import set_aside_what_stays

START_SECONDS = 120.0
STOP_SECONDS = 10.0
# Read once for all servers that are forked, so that thirty-two of them start in seconds.
PRELOADED = ["bench.transport.echo", "bench.rig.simulated"]

Serve = Callable[[Any], AbstractAsyncContextManager[int]]
"""Serves while its block runs and yields the port; a function of a module, since it is called in
another process.
"""


@dataclass(frozen=True)
class Server:
    """A process that serves: where, and its number."""

    address: str
    pid: int


@asynccontextmanager
async def services_running(
    members: Sequence[Member], variables: Mapping[str, str] | None = None
) -> AsyncIterator[list[Server]]:
    """Run services as `moesaic serve` would, all at once, until the block ends; yields them once
    all are ready.

    `variables` are added to their environment. They stop in the opposite order. Raises BenchFailed
    with the end of the log of one that does not start.
    """
    with tempfile.TemporaryDirectory(prefix="moesaic-bench-") as folder:
        children: list[Child] = []
        try:
            for member in members:
                log = Path(folder) / f"{member.name}.log"
                children.append(
                    await Child.start(member, log, {"GRPC_VERBOSITY": "ERROR", **(variables or {})})
                )
            async with asyncio.timeout(START_SECONDS):
                await asyncio.gather(*(child.until_ready() for child in children))
            yield [Server(child.member.address, child.pid) for child in children]
        except TimeoutError:
            raise BenchFailed(f"the services were not ready within {START_SECONDS:g} s") from None
        finally:
            for child in reversed(children):
                await child.stop(STOP_SECONDS)


@asynccontextmanager
async def forked(serve: Serve, arguments: Sequence[Any]) -> AsyncIterator[list[Server]]:
    """Run `serve` with each of the arguments in a process of its own until the block ends.

    The processes are forked from one that has imported everything, and leave when this one does.
    Raises BenchFailed when one of them ends before it serves.
    """
    # A server of the bench computes nothing: without this each would keep a pool of threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    started: list[tuple[BaseProcess, Connection]] = []
    process: BaseProcess
    try:
        for argument in arguments:
            ours, theirs = context.Pipe()
            process = context.Process(target=_live, args=(theirs, serve, argument), daemon=True)
            await asyncio.to_thread(process.start)
            theirs.close()
            started.append((process, ours))
        yield [await _server(process, connection) for process, connection in started]
    finally:
        for _, connection in started:
            connection.close()
        for process, _ in started:
            await asyncio.to_thread(process.join, STOP_SECONDS)


def cpu_nanos(*pids: int) -> int:
    """CPU time that the processes have taken so far, all of their threads together; Linux only."""
    # As clock_getcpuclockid(3) makes the clock of another process: its number inverted, and
    # CPUCLOCK_SCHED.
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


async def _server(process: BaseProcess, connection: Connection) -> Server:
    try:
        if not await asyncio.to_thread(connection.poll, START_SECONDS):
            raise BenchFailed(f"a server of the bench was not ready within {START_SECONDS:g} s")
        port = connection.recv()
    except EOFError:
        raise BenchFailed(
            "a server of the bench ended before it served; what it said stands above"
        ) from None
    assert process.pid is not None, "it was started"
    return Server(f"{LOOPBACK}:{port}", process.pid)


def _live(connection: Connection, serve: Serve, argument: Any) -> None:
    keep_freed_memory()  # as a service does
    run_in_loop(_serve(connection, serve, argument))
    os._exit(0)  # the interpreter would take torch apart for seconds


async def _serve(connection: Connection, serve: Serve, argument: Any) -> None:
    left = asyncio.Event()
    # The pipe is readable when its other end is gone, however the bench ended.
    asyncio.get_running_loop().add_reader(connection.fileno(), left.set)
    async with serve(argument) as port:
        set_aside_what_stays()
        connection.send(port)
        await left.wait()
