"""Commands of other programs: each has a time limit, and its output is shown when it fails."""

import asyncio
from collections.abc import Mapping, Sequence

from bench.harness.failure import BenchFailed

COMMAND_SECONDS = 90.0
NUM_LAST_LINES = 20


async def output(
    *command: str, seconds: float = COMMAND_SECONDS, variables: Mapping[str, str] | None = None
) -> str:
    """What a command writes to stdout. Raises BenchFailed when it fails, cannot be run or takes
    longer than that.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=variables,
        )
    except OSError as error:
        raise BenchFailed(f"{command[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(seconds):
            written, complaints = await process.communicate()
    except TimeoutError:
        raise BenchFailed(f"`{' '.join(command)}` took longer than {seconds:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise BenchFailed(f"`{' '.join(command)}` failed:\n{_end_of(complaints or written)}")
    return written.decode(errors="replace")


async def succeeds(*command: str) -> bool:
    """Whether a command ends well."""
    try:
        await output(*command)
    except BenchFailed:
        return False
    return True


def _end_of(text: bytes) -> str:
    lines: Sequence[str] = text.decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-NUM_LAST_LINES:])
