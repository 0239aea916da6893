"""One child process: started, waited for until it is ready, and stopped."""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from services.cli.members import Member
from services.runtime.announcement import announced_warnings
from services.wire.errors import ServingError

NUM_LAST_LINES = 12


class ServiceFailed(ServingError):
    """A process of the cluster ended and is not worth starting again; the message has the end of
    its log, in lines.
    """

    def __init__(self, obituary: str) -> None:
        super().__init__(obituary)
        self.args = (obituary,)


class Child:
    """A running process of one member. `log` is the file that its output goes to; None shows it on
    stderr.
    """

    def __init__(
        self, member: Member, process: asyncio.subprocess.Process, pipe: int, log: Path | None
    ) -> None:
        self.member = member
        self._process = process
        self._pipe = pipe
        self._log = log

    @classmethod
    async def start(cls, member: Member, log: Path | None, variables: dict[str, str]) -> "Child":
        """Start the member's process; it announces on a pipe that it is ready, and dies with this
        process.
        """
        reading, writing = os.pipe()
        output = _opened(log) if log is not None else None
        try:
            process = await asyncio.create_subprocess_exec(
                *member.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output if output is not None else sys.stderr,
                stderr=output if output is not None else sys.stderr,
                pass_fds=(writing,),
                # Ctrl-C reaches this process alone, which then stops the others in order.
                start_new_session=True,
                env={
                    **os.environ,
                    **variables,
                    "OTEL_SERVICE_NAME": member.name,
                    "MOESAIC_ANNOUNCE_FD": str(writing),
                    "MOESAIC_PARENT_PID": str(os.getpid()),
                },
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
            if output is not None:
                output.close()
        return cls(member, process, reading, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def until_ready(self) -> Sequence[str]:
        """Wait for the announcement; what the start warned of.

        Raises ServiceFailed when the process ends without one.
        """
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._pipe, "rb", 0)
        )
        try:
            line = await reader.readline()
        finally:
            transport.close()
        warnings = announced_warnings(line)
        if warnings is None:
            raise ServiceFailed(self.obituary(await self._process.wait(), "did not start"))
        return warnings

    async def wait(self) -> int:
        """The exit code, once the process has ended; negative for a signal."""
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> None:
        """Tell the process to stop, and end it when it has not after `grace_seconds`."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the process at once, if it is still there."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def obituary(self, code: int, what: str) -> str:
        """One line on how the process ended, then the last lines of its log."""
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = [f"{self.member.name} {what} ({how})"]
        if self._log is not None:
            lines += [f"  {line}" for line in self._last_lines(self._log)]
        return "\n".join(lines)

    def _last_lines(self, log: Path) -> list[str]:
        try:
            with open(log, encoding="utf-8", errors="replace") as file:
                return [line.rstrip() for line in deque(file, NUM_LAST_LINES)]
        except FileNotFoundError:  # tidied away with its folder
            return []

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)


def _opened(log: Path) -> BinaryIO:
    log.parent.mkdir(
        exist_ok=True
    )  # a cluster may run for longer than a temporary folder is let be
    return open(log, "ab")
