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
        # A terminal would break words at its width; a file has lines of any length.
        self.console = console or Console(
            file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty()
        )
        self._warnings: set[str] = set()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False)

    def warning(self, text: str) -> None:
        """Print a warning, once: several processes may have the same."""
        if text not in self._warnings:
            self._warnings.add(text)
            self.line(f"warning: {text}")

    def note(self, text: str) -> None:
        """Print a line faintly, in several where it is wider than the terminal."""
        self.console.print(text, style="dim", markup=False)

    def quote(self, text: str) -> None:
        """Print a text faintly as it is, without a line's end: what follows goes on after it."""
        self.console.print(text, style="dim", markup=False, end="", soft_wrap=True)
