"""How far each member of a starting cluster is: bars on a terminal, a line every few seconds
elsewhere.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from moesaic.v1 import expert_pb2
from services.cli.report import Report
from services.runtime.progress import Progress

REFRESH_SECONDS = 0.25
LINE_SECONDS = 5.0
# What takes no longer needs no clock beside it.
SHOWN_FROM_SECONDS = 2.0


class Row:
    """One member: what it is at, and how far it is where that can be counted, or since when.

    `now` gives seconds.
    """

    def __init__(self, name: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.progress: Progress | None = None
        self.is_ready = False
        self._now = now
        self._phase, self._since = "starts", now()

    def is_at(self, phase: str) -> None:
        """It is at this phase, perhaps for long already."""
        if phase != self._phase:
            self._phase, self._since = phase, self._now()

    def ready(self) -> None:
        """It serves."""
        self.is_at("is ready")
        self.is_ready = True

    def take(
        self,
        about: expert_pb2.ExpertServiceDescribeResponse,
        hosting: expert_pb2.WatchHostingResponse,
        *,
        coverage: int,
        num_services: int,
    ) -> int:
        """Take in what an expert service hosts; how many experts it has ready.

        As many as its even share are expected when each expert is to be on `coverage` of so many
        services.
        """
        num_ready = sum(one.state == expert_pb2.EXPERT_STATE_READY for one in hosting.experts)
        if hosting.experts:
            expert_bytes = max(about.expert_bytes)
            num_replicas = about.num_experts * len(about.moe_layers) * min(coverage, num_services)
            share = math.ceil(num_replicas / num_services) * expert_bytes
            self.progress = self.progress or Progress(share, num_ready * expert_bytes)
            self.progress.at(num_ready * expert_bytes)
            self.is_at("has its experts" if self.progress.is_done else "reads experts")
        return num_ready

    @property
    def figures(self) -> str:
        """What it is at, in words."""
        if self.progress is not None and not self.is_ready:
            return f"{self._phase}: {self.progress}"
        seconds = self._now() - self._since
        is_long = not self.is_ready and seconds >= SHOWN_FROM_SECONDS
        return f"{self._phase} ({seconds:.0f} s)" if is_long else self._phase


@asynccontextmanager
async def shown_rows(
    rows: Sequence[Row], report: Report, *, line_seconds: float = LINE_SECONDS
) -> AsyncIterator[None]:
    """Show the rows, as they change, for as long as the block takes."""
    report.line("starting the cluster")
    is_terminal = report.console.is_terminal
    keeping = _bars(rows, report) if is_terminal else _lines(rows, report, line_seconds)
    async with asyncio.TaskGroup() as tasks:
        showing = tasks.create_task(keeping)
        try:
            yield
        finally:
            showing.cancel()


async def _lines(rows: Sequence[Row], report: Report, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        report.line("starting: " + "; ".join(f"{row.name} {row.figures}" for row in rows))


async def _bars(rows: Sequence[Row], report: Report) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20))
    figures = TextColumn("{task.fields[figures]}", markup=False)
    with Bars(*columns, figures, console=report.console, transient=True) as bars:
        tasks = {row.name: bars.add_task(row.name, total=None, figures="") for row in rows}
        while True:
            for row in rows:
                _refresh(bars, tasks[row.name], row)
            await asyncio.sleep(REFRESH_SECONDS)


def _refresh(bars: Bars, task: TaskID, row: Row) -> None:
    total, done = (1, 1) if row.is_ready else (None, 0)
    if row.progress is not None and not row.is_ready:
        total, done = row.progress.total_bytes, row.progress.done_bytes
    bars.update(task, total=total, completed=done, figures=row.figures)
