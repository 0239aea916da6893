"""What is being measured and how far it is, on stderr while it runs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Stages:
    """The stages of a bench: a bar each on a terminal, a line each elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._began = time.monotonic()
        self._advance: Callable[[], None] = _nothing

    @contextmanager
    def stage(self, title: str, num_steps: int | None = None) -> Iterator[None]:
        """Show the stage while the block runs; `step` counts towards `num_steps`."""
        if not self._console.is_terminal:
            self._console.print(f"[{time.monotonic() - self._began:6.1f} s] {title}", markup=False)
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(title, total=num_steps)
            self._advance = lambda: progress.advance(task)
            try:
                yield
            finally:
                self._advance = _nothing

    def step(self) -> None:
        """One step of the stage is done."""
        self._advance()


def _nothing() -> None:
    pass
