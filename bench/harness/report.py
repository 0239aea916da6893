"""What a bench found: printed as tables, written as JSON with every raw sample, and drawn."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.harness.plot import Draw, write_plot
from bench.harness.table import Table
from services.cli.machine import Machine

# Wide enough for the widest table where stdout is a file; rich would cut at 80.
FILE_WIDTH = 180
PACKAGES = ("moesaic", "grpcio", "torch", "transformers")


@dataclass
class Report:
    """The findings of one bench.

    `compared` says what is compared with what. Names in `samples` carry their unit.
    """

    name: str
    compared: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    panels: list[Draw] = field(default_factory=list)
    machine: Machine = field(default_factory=partial(Machine.here, PACKAGES))
    began: datetime = field(default_factory=partial(datetime.now, UTC))

    def print(self) -> None:
        """Print to stdout what people read."""
        console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
        console.print(f"\nbench.{self.name}: {self.compared}\n", markup=False)
        for table in self.tables:
            console.print(table.as_rich())
        for note in self.notes:
            console.print(f"· {note}", markup=False)
        console.print(f"{self._measured}, {self.machine}", style="dim", markup=False)

    def write(self, json_path: Path, command: Sequence[str]) -> list[Path]:
        """Write the JSON, and the plot beside it; the paths written."""
        json_path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "bench": self.name,
            "command": list(command),
            "compared": self.compared,
            "machine": {"measured": self._measured, **self.machine.as_object()},
            "notes": self.notes,
            "tables": [table.as_object() for table in self.tables],
            "samples": self.samples,
        }
        json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        written = [json_path]
        if self.panels:
            written.append(json_path.with_suffix(".png"))
            write_plot(written[-1], f"bench.{self.name} · {self.machine.processor}", self.panels)
        return written

    @property
    def _measured(self) -> str:
        return self.began.isoformat(timespec="seconds")
