"""The floor: the same bytes between two processes in C, compiled here when it is needed."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.harness.command import OUTPUT
from bench.harness.failure import BenchFailed
from bench.transport.bursts import ANY, BURST, UNCOUNTED, Cores

SOURCE = Path(__file__).with_name("floor.c")
COMPILERS = ("cc", "gcc", "clang")

# Ways for bytes between two processes, as floor.c names them.
TCP, UNIX, MEMORY = "tcp", "unix", "memory"

MessageBytes = tuple[int, int]
"""Of a request, and of the reply to it."""


class NoFloor(BenchFailed):
    """There is no compiler, or it refused; the message is one line."""


class FloorClient:
    """A client in C with a server in C for each of some services, all of them connected."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def burst(self) -> list[float]:
        """As Burst says: from the first byte that is sent until all replies are there."""
        assert self._process.stdin is not None, "it is piped"
        assert self._process.stdout is not None, "it is piped"
        self._process.stdin.write(b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise BenchFailed("the floor's process ended; what it said stands above")
        return [int(nanos) / 1e6 for nanos in line.split()][UNCOUNTED:]


async def compiled_floor() -> Path:
    """The program, below the current folder. Raises NoFloor."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NoFloor(f"there is no C compiler ({', '.join(COMPILERS)})")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    program = OUTPUT.resolve() / "floor"
    process = await asyncio.create_subprocess_exec(
        *(compiler, "-std=gnu11", "-O2", str(SOURCE), "-o", str(program)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        first = said.decode(errors="replace").strip().partition("\n")[0]
        raise NoFloor(f"{compiler} could not compile {SOURCE.name}: {first}")
    return program


@asynccontextmanager
async def floor_running(
    program: Path,
    path: str,
    messages: Sequence[MessageBytes],
    num_services: int,
    cores: Cores = ANY,
) -> AsyncIterator[FloorClient]:
    """Exchange these messages with each of so many services until the block ends. The client runs
    where this process does.
    """
    core = -1 if cores.servers is None else cores.servers
    sizes = [f"{request}:{reply}" for request, reply in messages]
    process = await asyncio.create_subprocess_exec(
        *(str(program), path, str(num_services), str(BURST), str(core), *sizes),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the bench alone, which ends this
    )
    try:
        yield FloorClient(process)
    finally:
        process.kill()  # its servers see that it is gone
        await process.wait()
