"""How far a load is, on stderr: a bar where it is a terminal, a line for each load elsewhere."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from services.cli.bench.run import LoadRun
from services.cli.report import Report

REFRESH_SECONDS = 0.25
# The shown rate is that of the last refreshes.
REMEMBERED_REFRESHES = 12


class LoadProgress:
    """Shows a load from the counts that it keeps anyway, so that nothing has to be told for each
    token.
    """

    def __init__(self, run: LoadRun, num_tokens: Callable[[], int], progress: Progress) -> None:
        self._run = run
        self._num_tokens = num_tokens
        self._progress = progress
        self._seen: deque[tuple[float, int]] = deque(maxlen=REMEMBERED_REFRESHES)
        bounds = run.bounds
        self._task: TaskID = progress.add_task(
            run.load.label, total=bounds.requests or bounds.seconds, figures=""
        )

    async def keep_up(self) -> None:
        """Refresh until cancelled."""
        while True:
            self._refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    def _refresh(self) -> None:
        run = self._run
        self._seen.append((time.monotonic(), self._num_tokens()))
        (first_seconds, first_tokens), (last_seconds, last_tokens) = self._seen[0], self._seen[-1]
        passed = last_seconds - first_seconds
        rate = (last_tokens - first_tokens) / passed if passed else 0.0
        failed = f", {run.num_failed} failed" if run.num_failed else ""
        figures = (
            f"{rate:,.0f} tokens/s, {run.num_ended} done, {len(run.samples) - run.num_ended} in "
            f"flight{failed}"
        )
        done = run.num_ended if run.bounds.requests else run.seconds
        self._progress.update(self._task, completed=done, figures=figures)
        self._progress.refresh()


@asynccontextmanager
async def shown_progress(
    run: LoadRun, num_tokens: Callable[[], int], report: Report
) -> AsyncIterator[None]:
    """Show the load's progress for as long as the block takes."""
    if not report.console.is_terminal:
        report.line(f"measuring: {run.load.label}")
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[figures]}"),
    )
    # Its own thread would refresh ten times a second, at the cost of what is measured.
    with Progress(
        *columns, TimeElapsedColumn(), console=report.console, transient=True, auto_refresh=False
    ) as bar:
        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(LoadProgress(run, num_tokens, bar).keep_up())
            try:
                yield
            finally:
                showing.cancel()
