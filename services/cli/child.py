"""One child process: started, waited for until it is ready, and stopped."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from services.cli.birth import Birth
from services.cli.log_file import output_to
from services.cli.members import Member
from services.cli.nursery import BORN, NotBorn, Nursery
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


class Process(Protocol):
    """A child process, whoever started it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...

    def send_signal(self, signal: signal.Signals) -> None: ...


class Child:
    """A running process of one member. `log` is the file that its output goes to; None shows it on
    stderr.
    """

    def __init__(self, member: Member, process: Process, pipe: int, log: Path | None) -> None:
        self.member = member
        self._process = process
        self._pipe = pipe
        self._log = log

    @classmethod
    async def start(
        cls,
        member: Member,
        log: Path | None,
        variables: Mapping[str, str],
        nursery: Nursery | None = None,
    ) -> "Child":
        """Start the member's process, in the nursery where that is of use; it announces on a pipe
        that it is ready, and dies with this process.
        """
        reading, writing = os.pipe()
        own = {
            **variables,
            "OTEL_SERVICE_NAME": member.name,
            "MOESAIC_PARENT_PID": str(os.getpid()),
        }
        try:
            with output_to(log) as output:
                process = await _started(member, own, nursery, output, writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
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


async def _started(
    member: Member,
    variables: Mapping[str, str],
    nursery: Nursery | None,
    output: int,
    announcing: int,
) -> Process:
    if nursery is not None and member.service in BORN:
        birth = Birth(member.service, member.flags, " ".join(member.command), variables)
        with suppress(NotBorn):
            return await nursery.bear(birth, output=output, announcing=announcing)
    return await asyncio.create_subprocess_exec(
        *member.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(announcing,),
        # Ctrl-C reaches this process alone, which then stops the others in order.
        start_new_session=True,
        env={**os.environ, **variables, "MOESAIC_ANNOUNCE_FD": str(announcing)},
    )
