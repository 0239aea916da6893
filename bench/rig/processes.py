"""Processes of a bench: services as operators start them, servers of the bench's own, and the CPU
time they take.
"""

import asyncio
import json
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.failure import BenchFailed
from bench.rig.nursery import Serve
from services.cli.child import Child
from services.cli.members import LOOPBACK, Member

START_SECONDS = 120.0
STOP_SECONDS = 10.0


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
async def forked(
    serve: Serve, arguments: Sequence[Any], variables: Mapping[str, str] | None = None
) -> AsyncIterator[list[Server]]:
    """Run `serve` with each of the arguments in a process of its own until the block ends.

    The processes are forked from one that has imported everything with `variables` in its
    environment, and leave when this one does. Raises BenchFailed when one of them ends before it
    serves.
    """
    nursery = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.rig.nursery"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then leaves
        # A server of the bench computes nothing: without this each would keep a pool of threads.
        env={**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})},
    )
    assert nursery.stdin is not None, "it is piped"
    try:
        nursery.stdin.write(pickle.dumps((serve, arguments)))
        yield await _serving(nursery, len(arguments))
    finally:
        nursery.stdin.close()
        await _ended(nursery)


def cpu_nanos(*pids: int) -> int:
    """CPU time that the processes have taken so far, all of their threads together; Linux only."""
    # As clock_getcpuclockid(3) makes the clock of another process: its number inverted, and
    # CPUCLOCK_SCHED.
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


async def _ended(nursery: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await nursery.wait()
    except TimeoutError:
        os.killpg(nursery.pid, signal.SIGKILL)


async def _serving(nursery: asyncio.subprocess.Process, count: int) -> list[Server]:
    assert nursery.stdout is not None, "it is piped"
    found: dict[int, Server] = {}
    try:
        async with asyncio.timeout(START_SECONDS):
            while len(found) < count:
                said = json.loads(await nursery.stdout.readline() or "null")
                if said is None:
                    raise BenchFailed(
                        "a server of the bench ended before it served; what it said stands above"
                    )
                number, pid, port = said
                found[number] = Server(f"{LOOPBACK}:{port}", pid)
    except TimeoutError:
        raise BenchFailed(
            f"a server of the bench was not ready within {START_SECONDS:g} s"
        ) from None
    return [found[number] for number in range(count)]
