"""How far an operation is, as the person at the terminal sees it: a bar, or a line now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from moesaic.v1 import router_pb2
from services.cli.hosting.plan import plan_summary
from services.cli.report import Report

PHASES = {
    router_pb2.OPERATION_PHASE_WAITING: "waiting for its turn",
    router_pb2.OPERATION_PHASE_LOADING: "loading",
    router_pb2.OPERATION_PHASE_RETIRING: "retiring",
    router_pb2.OPERATION_PHASE_DONE: "done",
}
# Between two lines of the same phase, where there is no terminal.
LINE_SECONDS = 5.0
MEGABYTE = 1e6


@contextmanager
def shown_on(report: Report) -> Iterator["Shown"]:
    """Show an operation for as long as the block takes."""
    if not report.console.is_terminal:
        yield Shown(report, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=report.console, transient=True) as bar:
        yield Shown(report, bar)


class Shown:
    """An operation's progress: a bar where there is one, elsewhere a line for each phase and every
    few seconds.
    """

    def __init__(self, report: Report, bar: Progress | None) -> None:
        self._report = report
        self._bar = bar
        self._task = bar.add_task("asking", total=None) if bar is not None else None
        self._bytes = BytesLoaded()
        self._latest_line = "done", -LINE_SECONDS  # that phase is reported at the end

    def show(self, response: router_pb2.ChangePlacementResponse) -> None:
        """Take in how far it is, and say what is planned."""
        if response.HasField("plan"):
            for sentence in plan_summary(response.plan):
                self._report.line(sentence)
        now = time.monotonic()
        loaded = self._bytes.words(response.loaded_bytes, response.total_bytes, now)
        phase = PHASES.get(response.phase, "working")
        if self._bar is not None and self._task is not None:
            # Until the router has counted there is no total.
            total = response.num_total or None
            self._bar.update(
                self._task, description=f"{phase}{loaded}", completed=response.num_done, total=total
            )
        else:
            self._line(response, f"{phase}, {response.num_total} changes in all", loaded, now)

    def _line(
        self, response: router_pb2.ChangePlacementResponse, words: str, loaded: str, now: float
    ) -> None:
        phase, seconds = self._latest_line
        this = PHASES.get(response.phase, "working")
        is_waiting = response.phase == router_pb2.OPERATION_PHASE_WAITING
        if this == "done" or not (response.num_total or is_waiting):
            return
        if phase == this and now < seconds + LINE_SECONDS:
            return
        self._latest_line = this, now
        done = f", {response.num_done} done" if response.num_done else ""
        self._report.line(
            f"operation {response.operation_id}: {this if is_waiting else words + done + loaded}"
        )


class BytesLoaded:
    """Turns bytes into a rate and the time left, by what came since the first were counted."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def words(self, loaded: int, total: int, now: float) -> str:
        """What has been loaded by `now`, in seconds, of how much; empty where nothing is to be."""
        if not total:
            return ""
        if self._first is None:
            self._first = loaded, now
        words = f"; {loaded / MEGABYTE:.0f} of {total / MEGABYTE:.0f} MB"
        since, seconds = loaded - self._first[0], now - self._first[1]
        if since <= 0 or seconds <= 0:
            return words
        rate = since / seconds
        return f"{words}, {rate / MEGABYTE:.0f} MB/s, {(total - loaded) / rate:.0f} s left"
