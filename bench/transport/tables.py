"""The table and the plots of bench.transport.__main__."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.harness.plot import draw_spreads, label_axes
from bench.harness.report import Report
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table
from bench.transport.tensor import MAX_ROWS_BYTES

KIB, MIB = 1 << 10, 1 << 20
FLOOR, ECHO = "C TCP echo", "bare grpc.aio echo"


@dataclass(frozen=True)
class Case:
    """An exchange of so many bytes each way with each of so many services: `samples` are
    milliseconds, by FLOOR where there is one, ECHO, and each transport.
    """

    num_bytes: int
    num_services: int
    samples: Mapping[str, Sequence[float]]

    def ratio(self, variant: str, to: str) -> Spread | None:
        """How long it took, over what another did in the same round; None without the other."""
        if to not in self.samples or variant == to:
            return None
        return ratio_of(self.samples[variant], self.samples[to])


def fill(report: Report, cases: Sequence[Case], transports: Sequence[str]) -> None:
    """Add everything that the cases show."""
    report.tables.append(_table(cases))
    report.samples = {
        f"{case.num_bytes} bytes, {case.num_services} services, ms": case.samples for case in cases
    }
    if max(case.num_bytes for case in cases) > MAX_ROWS_BYTES:
        report.notes.append(
            f"the router never sends more than {shown_size(MAX_ROWS_BYTES)} of rows in a frame: a "
            "larger tensor "
            "goes as several, and so do the echoes' bytes"
        )
    for transport in transports:
        report.panels.append(partial(_draw, cases=cases, transport=transport))


def _table(cases: Sequence[Case]) -> Table:
    table = Table(
        "one exchange (service devices SIMULATED, without time)",
        (
            "bytes each way",
            "services",
            "variant",
            "ms",
            f"÷ {FLOOR}",
            f"÷ {ECHO}",
            "MiB/s each way",
        ),
    )
    for case in cases:
        for variant, taken in case.samples.items():
            spread = spread_of(taken)
            table.add(
                shown_size(case.num_bytes),
                case.num_services,
                variant if variant in (FLOOR, ECHO) else f"tensor stream, {variant}",
                spread,
                case.ratio(variant, FLOOR),
                case.ratio(variant, ECHO),
                case.num_bytes * case.num_services / MIB / spread.median * 1e3,
            )
    return table


def _draw(axis: Any, *, cases: Sequence[Case], transport: str) -> None:
    for count in dict.fromkeys(case.num_services for case in cases):
        own = [case for case in cases if case.num_services == count]
        spreads = [ratio_of(case.samples[transport], case.samples[ECHO]) for case in own]
        draw_spreads(axis, [case.num_bytes for case in own], spreads, f"services: {count}")
    axis.axhline(1.0, color="black", linewidth=0.8)
    label_axes(
        axis,
        f"tensor stream, {transport} ÷ {ECHO} (devices SIMULATED, no time)",
        "bytes each way and service",
        "ratio",
    )


def shown_size(num_bytes: int) -> str:
    """Bytes as people say them."""
    return f"{num_bytes / MIB:g} MiB" if num_bytes >= MIB else f"{num_bytes / KIB:g} KiB"
