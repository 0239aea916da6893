"""The parser of a command's flags: its help fits a terminal of 80 columns, and for a flag that is
none it says which was meant.
"""

import re
import sys
import textwrap
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from services.runtime.invocation import typed

WIDTH = 80
# Where a line of an example may go on in the next one.
BREAK = re.compile(r" (?=--|- <|127)")


class FlagParser(ArgumentParser):
    """Of the command called `prog`; `description` is filled anew, paragraph by paragraph."""

    def __init__(
        self, prog: str, description: str, examples: Sequence[str], note: str = ""
    ) -> None:
        self.flags: list[str] = []
        self.words: list[str] = []
        paragraphs = [textwrap.fill(one, WIDTH - 1) for one in description.split("\n\n")]
        epilog = "\n  ".join(["examples:", *map(example, examples)]) if examples else ""
        super().__init__(
            prog=prog,
            description="\n\n".join(paragraphs),
            epilog="\n\n".join(filter(None, [epilog, textwrap.fill(note, WIDTH - 1)])),
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_argument(self, *names: str, **keywords: Any) -> Any:
        """As argparse has it."""
        self.know(names, keywords.get("metavar"))
        return super().add_argument(*names, **keywords)

    def know(self, names: Sequence[str], metavar: str | None) -> None:
        """Take note of an argument, which may be one of a group."""
        if names[0].startswith("-"):
            self.flags += names
        else:
            self.words.append(metavar or names[0].upper())
        self.usage = " ".join([self.prog, *self.words, "[FLAGS]"])

    def parse_args(self, args: Any = None, namespace: Any = None) -> Namespace:  # type: ignore[override]
        """As argparse has it; of what it does not know the first flag is blamed."""
        known: Namespace
        known, unknown = self.parse_known_args(args, namespace)
        flags = [one.partition("=")[0] for one in unknown if one.startswith("-")]
        if flags:
            close = get_close_matches(flags[0], self.flags, 1)
            self.error(f"no flag {flags[0]}" + (f", did you mean {close[0]}?" if close else ""))
        if unknown:
            self.error(f"{unknown[0]!r} is one argument too many; is it to be in quotes?")
        return known

    def error(self, message: str) -> NoReturn:
        """One line of usage, one of what is wrong; exits with 2."""
        print(f"usage: {self.usage}\n{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)

    def print_help(self, file: Any = None) -> None:
        """As argparse has it, but for errors: it hides those of a full disk."""
        (file or sys.stdout).write(self.format_help())


def example(line: str) -> str:
    """A command to be typed, in as many lines as it takes."""
    lines, whole = [], typed(line)
    while len(whole) > WIDTH - 4 and (breaks := [*BREAK.finditer(whole, 0, WIDTH - 4)]):
        at = breaks[-1].start()
        lines.append(f"{whole[:at]} \\")
        whole = f"    {whole[at + 1 :]}"
    return "\n  ".join([*lines, whole])
