"""What the person at the terminal sees: on stderr how far a command is, on stdout what it found."""

import errno
import os
import sys

from rich.console import Console

FILE_WIDTH = 120  # of what is printed where there is no terminal


def output(file_width: int = FILE_WIDTH) -> Console:
    """Where tables go: stdout, as wide as it is. Printing raises BrokenPipeError where its reader
    has left.
    """
    return _Output(highlight=False, width=None if sys.stdout.isatty() else file_width)


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to whoever ends the command: rich itself would exit from wherever it is."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Report:
    """Lines on stderr that stay, and the console that they go to."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._warnings: set[str] = set()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False)

    def warning(self, text: str) -> None:
        """Print a warning, once: several processes may have the same."""
        if text not in self._warnings:
            self._warnings.add(text)
            self.line(f"warning: {text}")

    def quote(self, text: str) -> None:
        """Print a text faintly, without a line's end, so that what follows goes on after it."""
        self.console.print(text, style="dim", markup=False, end="")
