"""Streams text to a terminal without breaking words at its width."""

import shutil
from collections.abc import Callable
from typing import TextIO

from rich.cells import cell_len

WIDE = 2  # columns of a character that is a word by itself, as those of Chinese are
TAB = 8
BLANKS = " \t\n"


def terminal_width() -> int:
    """Columns of the terminal, as it is now."""
    return shutil.get_terminal_size().columns


def word_writer(stream: TextIO, write: Callable[[str], None]) -> "WordWriter":
    """A writer of what goes to the stream, which breaks no words where that is a terminal, and
    changes nothing elsewhere.
    """
    return WordWriter(write, width=terminal_width if stream.isatty() else None)


class WordWriter:
    """Gives words to `write` as soon as they are whole, and begins a line before one that would not
    fit the `width` that is left of it.

    Where only a part of a word has come, it waits for the rest; `end` writes what waits. A word
    that is wider than a line is written as it comes, and so is everything without a width.
    """

    def __init__(self, write: Callable[[str], None], *, width: Callable[[], int] | None) -> None:
        self._write = write
        self._width = width
        self._column = 0
        self._gap = ""  # blanks before the word, which are left out where a line begins instead
        self._word = ""

    def follow(self, text: str, show: Callable[[str], None]) -> None:
        """Have `show` write a text, kept whole likewise, that what comes goes on after."""
        before, self._write = self._write, show
        try:
            self.write(text)
            self.end()
        finally:
            self._write = before

    def write(self, text: str) -> None:
        """Take more text in."""
        self._write(text if self._width is None else self._taken(text, self._width()))

    def end(self) -> None:
        """Write what waits: nothing follows."""
        if self._width is not None:
            self._write(self._flush(self._width()))

    def _taken(self, text: str, width: int) -> str:
        """What is ready to be written of all that came."""
        ready = []
        for character in text:
            is_wide = cell_len(character) == WIDE
            if character in BLANKS or is_wide:
                ready.append(self._flush(width) if self._word else "")
            if character == "\n":
                ready.append(self._flush(width) + character)
                self._column = 0
            elif character in BLANKS:
                self._gap += character
            else:
                self._word += character
                if is_wide or cell_len(self._word) >= width:
                    ready.append(self._flush(width))
        return "".join(ready)

    def _flush(self, width: int) -> str:
        """What waits, after a line's end where it does not fit."""
        gap, word = self._gap, self._word
        self._gap = self._word = ""
        columns = len(gap.expandtabs(TAB)) + cell_len(word)
        if word and gap and self._column and self._column + columns > width:
            gap, columns, self._column = "\n", cell_len(word), 0
        self._column += columns
        if self._column > width:  # the terminal itself went on in another line
            self._column %= width
        return gap + word
