"""The tables of bench.soak.__main__."""

from collections.abc import Sequence
from dataclasses import asdict

from bench.harness.report import Report
from bench.harness.table import Table
from bench.hosting.tables import MEBIBYTE
from bench.soak.footprint import Footprint


def add_processes(report: Report, before: Footprint, after: Footprint) -> None:
    """What each process holds after the warm-up and at the end; one that was killed meanwhile is
    another one at the end.
    """
    headings = (
        "process",
        "MiB after warm-up",
        "MiB at the end",
        "grown by %",
        "descriptors",
        "at the end",
        "threads",
        "at the end",
    )
    table = Table("what processes hold while nobody asks", headings)
    for name, end in after.processes.items():
        begin = before.processes.get(name)
        if begin is None or begin.pid != end.pid:
            mebibytes = end.resident_bytes / MEBIBYTE
            row = (None, mebibytes, None, None, end.descriptors, None, end.threads)
            table.add(f"{name}, started meanwhile", *row)
            continue
        table.add(
            *(name, begin.resident_bytes / MEBIBYTE, end.resident_bytes / MEBIBYTE),
            100.0 * (end.resident_bytes / begin.resident_bytes - 1.0),
            *(begin.descriptors, end.descriptors, begin.threads, end.threads),
        )
    report.tables.append(table)


def add_gauges(report: Report, before: Footprint, after: Footprint) -> None:
    """What requests held, of which nothing is to be left."""
    table = Table("what requests left", ("gauge", "after warm-up", "at the end", "left"))
    for what, end in after.gauges.items():
        begin = before.gauges[what]
        table.add(what, begin, end, abs(end - begin))
    report.tables.append(table)


def add_footprints(report: Report, footprints: Sequence[Footprint]) -> None:
    """All of them, the first one of after the warm-up."""
    add_processes(report, footprints[0], footprints[-1])
    add_gauges(report, footprints[0], footprints[-1])
    report.samples["footprints"] = [asdict(footprint) for footprint in footprints]
