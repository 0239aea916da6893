"""A cluster by `moesaic serve`, as a user starts it, and what it says of itself."""

import asyncio
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness.failure import BenchFailed

# Of a start from a disk that is slow.
START_SECONDS = 600.0
STOP_SECONDS = 60.0
NUM_LAST_LINES = 20
MEMBER = re.compile(r"(\S+) +(\S+:\d+) +pid (\d+) ")
AGAIN = re.compile(r"(\S+) is ready again, pid (\d+)")
READY = "ready: "


@dataclass
class Member:
    """A process of the cluster, the one that runs now."""

    address: str
    pid: int


@dataclass
class ServedCluster:
    """A running cluster; `seconds_to_ready` are those from the command to the line that says so."""

    seconds_to_ready: float = 0.0
    members: dict[str, Member] = field(default_factory=dict)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=NUM_LAST_LINES))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _is_ready: bool = False

    @property
    def experts(self) -> dict[str, Member]:
        """The expert services, by name."""
        return {name: member for name, member in self.members.items() if name.startswith("expert-")}

    def take(self, line: str) -> None:
        """Take in a line that the command said."""
        self.lines.append(line)
        if match := MEMBER.match(line):
            self.members[match[1]] = Member(match[2], int(match[3]))
        elif match := AGAIN.match(line):
            self.members[match[1]].pid = int(match[2])
        elif line.startswith(READY):
            self._is_ready = True
        self._changed.set()

    async def until_ready(self) -> None:
        """Wait for the line that says it."""
        while not self._is_ready:
            await self._next()

    async def kill(self, name: str) -> None:
        """SIGKILL an expert service; returns once it was started again."""
        pid = self.members[name].pid
        os.kill(pid, signal.SIGKILL)
        while self.members[name].pid == pid:
            await self._next()

    async def _next(self) -> None:
        self._changed.clear()
        await self._changed.wait()


@asynccontextmanager
async def served(
    model: Path | None, *, coverage: int, flags: Sequence[str] = (), tree: Path | None = None
) -> AsyncIterator[ServedCluster]:
    """Run `moesaic serve` with two expert services until the block ends, of the embedded model
    where none is given, and of this project as it stands in another `tree` where one is.

    Raises BenchFailed with the last of what it said when it is not ready in time, or ends.
    """
    command = (sys.executable, "-P", "-m", "services.cli.main", "serve")
    which = () if model is None else (f"--model={model}",)
    shape = ("--experts=2", f"--coverage={coverage}", "--listen=127.0.0.1:0", "--drain-seconds=1")
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(*command, *which, *shape, *flags),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then stops it
        env=_environment(tree),
    )
    cluster = ServedCluster()
    reading = asyncio.create_task(_read(process, cluster))
    try:
        async with asyncio.timeout(START_SECONDS):
            ready = asyncio.create_task(cluster.until_ready())
            await asyncio.wait((ready, reading), return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
        if reading.done():
            raise BenchFailed("moesaic serve ended:\n" + "\n".join(cluster.lines))
        cluster.seconds_to_ready = time.perf_counter() - began
        yield cluster
    except TimeoutError:
        said = "\n".join(cluster.lines)
        raise BenchFailed(f"not ready within {START_SECONDS:g} s:\n{said}") from None
    finally:
        await _stop(process)
        await reading


def _environment(tree: Path | None) -> dict[str, str]:  # of no other kind, says uvloop
    return {**os.environ, **({} if tree is None else {"PYTHONPATH": str(tree.resolve())})}


async def _read(process: asyncio.subprocess.Process, cluster: ServedCluster) -> None:
    assert process.stderr is not None, "it is piped"
    async for line in process.stderr:
        cluster.take(line.decode(errors="replace").rstrip())


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
