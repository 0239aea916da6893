"""Spans under each other with their bars on one scale of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from services.cli.trace.bars import bar
from services.traces.durations import millis
from services.traces.model import Process, Span
from services.traces.parts import Stretch

MIN_BAR_WIDTH, MIN_NAME_WIDTH, MAX_NAME_WIDTH, DURATION_WIDTH = 16, 24, 44, 12


@dataclass(frozen=True)
class Row:
    """A line of a waterfall; without a span it is only a remark, and what stands `beside` it."""

    depth: int
    span: Span | None
    remark: str = ""
    segments: Sequence[Stretch] = ()
    beside: str = ""


@dataclass(frozen=True)
class Panel:
    """Rows from `started` to `ended`, in microseconds since 1970; as wide as there is room."""

    rows: Sequence[Row]
    colours: Mapping[Process, str]
    started: int
    ended: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = [self._name(row) for row in self.rows]
        # Two fifths of a narrow terminal is enough for names: the bars are what one looks at.
        most = max(min(MAX_NAME_WIDTH, 2 * options.max_width // 5), MIN_NAME_WIDTH)
        widest = min(max(name.cell_len for name in names), most)
        width = max(options.max_width - widest - DURATION_WIDTH - 2, MIN_BAR_WIDTH)
        for row, name in zip(self.rows, names, strict=True):
            if row.span is None and not row.beside:
                yield name
                continue
            name.truncate(widest, overflow="ellipsis", pad=True)
            if row.span is None:
                yield name.append(f"  {row.beside}", "dim")
                continue
            line = name.append("  ")
            line.append_text(bar(row.segments, self.colours, self.started, self.ended, width))
            style = "red" if row.span.is_error else ""
            yield line.append(f"{millis(row.span.duration):>{DURATION_WIDTH}}", style)

    def _name(self, row: Row) -> Text:
        text = Text("  " * row.depth, no_wrap=True)
        if row.span is None:
            return text.append(row.remark, "dim")
        text.append(row.span.name, self.colours[row.span.process])
        return text.append(f" {row.remark}" if row.remark else "", "dim")
