"""Tables, their figures, and what is written of them."""

import json
from pathlib import Path

import pytest

from bench.harness.report import Report
from bench.harness.statistics import Spread
from bench.harness.table import Cell, Table, shown_cell


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (None, "-"),
        ("echo", "echo"),
        (32, "32"),
        (0.0, "0"),
        (0.123456, "0.123"),
        (12345.6, "12,346"),
        (Spread(2.0, 1.5, 2.5, 9), "2 (1.5 to 2.5)"),
    ],
)
def test_a_cell_is_shown_with_three_digits_and_its_spread(cell: Cell, shown: str) -> None:
    assert shown_cell(cell) == shown


def test_a_row_has_a_cell_for_each_heading() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 headings"):
        Table("times", ("case", "ms")).add("echo")


def test_what_is_written_holds_spreads_and_raw_samples(tmp_path: Path) -> None:
    table = Table("times", ("case", "ms"))
    table.add("echo", Spread(2.0, 1.5, 2.5, 3))
    report = Report(
        "transport", "this against that", tables=[table], samples={"echo, ms": [1.0, 2.0, 3.0]}
    )
    (path,) = report.write(
        tmp_path / "found" / "transport.json", ["python", "-m", "bench.transport"]
    )
    written = json.loads(path.read_text())
    assert written["tables"][0]["rows"] == [
        ["echo", {"median": 2.0, "low": 1.5, "high": 2.5, "count": 3}]
    ]
    assert written["samples"] == {"echo, ms": [1.0, 2.0, 3.0]}
    assert written["machine"]["cores"] >= 1
