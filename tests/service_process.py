"""A service as a process of its own, to be watched, signalled, stopped and killed."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.cli.members import free_addresses

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """A port that nobody listens on."""
    (address,) = free_addresses(1)
    return int(address.rpartition(":")[2])


@asynccontextmanager
async def service_process(
    name: str, *flags: str, stderr: int = asyncio.subprocess.PIPE
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """The process of `services.name` and the stream on which it announces that it is ready; it is
    killed at the end.
    """
    reading, writing = os.pipe()
    announced = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(announced), os.fdopen(reading, "rb")
    )
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{name}", *flags),
        stderr=stderr,
        pass_fds=(writing,),
        env=os.environ | {"MOESAIC_ANNOUNCE_FD": str(writing)},
        cwd=ROOT,
    )
    os.close(writing)
    try:
        yield running, announced
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()
        transport.close()
