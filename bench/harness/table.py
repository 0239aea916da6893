"""Tables of figures: shown to people with their spread, written to JSON as numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import rich.table
from rich import box

from bench.harness.statistics import Spread

Cell: TypeAlias = str | int | float | Spread | None


@dataclass
class Table:
    """Rows of cells below headings; a Spread is shown as `median (lower to upper quartile)`."""

    title: str
    headings: Sequence[str]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        """Add a row. Raises ValueError unless it has a cell for each heading."""
        if len(cells) != len(self.headings):
            raise ValueError(f"{self.title}: {len(cells)} cells for {len(self.headings)} headings")
        self.rows.append(cells)

    def as_rich(self) -> rich.table.Table:
        """The table for a terminal."""
        shown = rich.table.Table(
            title=self.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for number, heading in enumerate(self.headings):
            shown.add_column(heading, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            shown.add_row(*map(shown_cell, row))
        return shown

    def as_object(self) -> dict[str, Any]:
        """The table for JSON."""
        rows = [
            [asdict(cell) if isinstance(cell, Spread) else cell for cell in row]
            for row in self.rows
        ]
        return {"title": self.title, "headings": list(self.headings), "rows": rows}


def shown_cell(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return "-"
    if isinstance(cell, Spread):
        return (
            f"{shown_number(cell.median)} ({shown_number(cell.low)} to {shown_number(cell.high)})"
        )
    return shown_number(cell) if isinstance(cell, float) else str(cell)


def shown_number(value: float) -> str:
    """Three significant digits, and no exponent where people would not write one."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
