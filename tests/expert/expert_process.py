"""An expert service as a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def process(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """An expert process and the stream on which it announces that it is ready."""
    reading, writing = os.pipe()
    announced = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(announced), os.fdopen(reading, "rb")
    )
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.expert", *flags),
        stderr=asyncio.subprocess.PIPE,
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
