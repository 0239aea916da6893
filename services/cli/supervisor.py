"""Keeps one member of the cluster running: starts it again when it crashes, until it crashes too
often.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from services.cli.child import Child, ServiceFailed
from services.cli.members import Member
from services.cli.nursery import Nursery
from services.runtime.process import FAILED_EXIT

MAX_CRASHES = 3
CRASH_WINDOW_SECONDS = 60.0
FIRST_BACKOFF_SECONDS = 0.5
# Before an expert service that says why it cannot start is tried again; the others serve on
# meanwhile.
REFUSED_SECONDS = 5.0


class Supervisor:
    """Owns the processes of one member, one after another.

    `report` is told in a sentence about each crash, `warn` of what the first start warned of,
    unless the log is shown; processes come from the `nursery` where there is one; `changed` is
    called when it has another process. `run` ends when the member was told to stop; it raises
    ServiceFailed when the first start fails or at the third crash within a minute. An expert
    service whose later start ends with a word why, its checkpoint having changed, say, has not
    crashed: it is tried again until it can start.
    """

    def __init__(
        self,
        member: Member,
        folder: Path | None,
        variables: dict[str, str],
        report: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
        nursery: Nursery | None = None,
        changed: Callable[[], None] = lambda: None,
        *,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
        refused_seconds: float = REFUSED_SECONDS,
    ) -> None:
        self.member = member
        self.ready = asyncio.Event()
        self._log = folder / f"{member.name}.log" if folder is not None else None
        self._variables = variables
        self._report = report
        self._warn = warn or report
        self._nursery = nursery
        self._changed = changed
        self._first_backoff_seconds = first_backoff_seconds
        self._refused_seconds = refused_seconds
        self._is_refused = False
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)

    @property
    def pid(self) -> int | None:
        """The process now running, if there is one."""
        return self._child.pid if self._child is not None else None

    async def run(self) -> None:
        """Keep the member running until `stop`; its process never outlives this call."""
        while not self._stopping.is_set():
            child = await Child.start(self.member, self._log, self._variables, self._nursery)
            self._child = child
            try:
                self._changed()
                if (
                    not self._stopping.is_set()
                ):  # `stop` may have come while there was no child to stop
                    await self._watch(child)
            finally:
                self._child = None
                await child.kill()

    async def stop(self, grace_seconds: float) -> None:
        """Let the process finish what it does, for at most `grace_seconds`."""
        self._stopping.set()
        if self._child is not None:
            await self._child.stop(grace_seconds)

    async def _watch(self, child: Child) -> None:
        try:
            warnings = await child.until_ready()
        except ServiceFailed as error:
            if self._stopping.is_set():
                return
            if not self.ready.is_set():
                raise
            if self.member.service == "expert" and await child.wait() == FAILED_EXIT:
                await self._refused(str(error))
            else:
                await self._crashed(str(error))
            return
        self._is_refused = False
        if self.ready.is_set():
            self._report(f"{self.member.name} is ready again, pid {child.pid}")
        elif self._log is not None:
            for warning in warnings:
                self._warn(warning)
        self.ready.set()
        code = await child.wait()
        if not self._stopping.is_set():
            await self._crashed(child.obituary(code, "ended by itself"))

    async def _crashed(self, obituary: str) -> None:
        now = time.monotonic()
        self._crashes.append(now)
        if len(self._crashes) == MAX_CRASHES and now - self._crashes[0] < CRASH_WINDOW_SECONDS:
            raise ServiceFailed(
                f"{obituary}\n{self.member.name} crashed {MAX_CRASHES} times within a minute"
            )
        backoff = self._first_backoff_seconds * 2 ** (len(self._crashes) - 1)
        self._report(f"{obituary}\n{self.member.name} is started again in {backoff:g} s")
        await self._pause(backoff)

    async def _refused(self, obituary: str) -> None:
        if not self._is_refused:  # said once, not at each attempt
            self._report(
                f"{obituary}\n{self.member.name} is tried again every {self._refused_seconds:g} s"
            )
        self._is_refused = True
        await self._pause(self._refused_seconds)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
