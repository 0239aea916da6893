"""The table and the plots of bench.transport.__main__."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.harness.plot import draw_spreads, label_axes
from bench.harness.report import Report
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table
from bench.rig.transports import GRPC, NATIVE
from bench.transport.bursts import ANY
from bench.transport.floor import MEMORY, TCP, UNIX
from bench.transport.tensor import MAX_ROWS_BYTES

KIB, MIB = 1 << 10, 1 << 20
FLOOR, ECHO = "C TCP echo", "bare grpc.aio echo"
IN_C = {FLOOR: TCP, "C UNIX socket echo": UNIX, "C shared memory": MEMORY}
# The tensor stream frame by frame, which over grpc it always is.
FRAMES = {GRPC: GRPC, NATIVE: f"{NATIVE}, frame by frame"}


@dataclass(frozen=True)
class Case:
    """An exchange of so many bytes each way with each of so many services, on these cores:
    `samples` are milliseconds, by the names of IN_C where there is a compiler, ECHO, and each
    transport, by the exchange where it can be one and by FRAMES.
    """

    num_bytes: int
    num_services: int
    cores: str
    samples: Mapping[str, Sequence[float]]

    def ratio(self, variant: str, to: str) -> Spread | None:
        """How long it took, over what another did at the same place of the same round's burst; None
        without the other.
        """
        if to not in self.samples or variant == to:
            return None
        return ratio_of(self.samples[variant], self.samples[to])


def fill(report: Report, cases: Sequence[Case], transports: Sequence[str]) -> None:
    """Add everything that the cases show."""
    report.tables.append(_table(cases))
    report.samples = {_name(case): case.samples for case in cases}
    if max(case.num_bytes for case in cases) > MAX_ROWS_BYTES:
        report.notes.append(
            f"the router never sends more than {shown_size(MAX_ROWS_BYTES)} of rows in a frame: a "
            "larger tensor "
            "goes as several, and so do the echoes' bytes"
        )
    for transport in transports:
        report.panels.append(partial(_draw, cases=cases, transport=transport))


def _name(case: Case) -> str:
    return f"{case.num_bytes} bytes, {case.num_services} services, {case.cores} cores, ms"


def _table(cases: Sequence[Case]) -> Table:
    table = Table(
        "one exchange (service devices SIMULATED, without time)",
        (
            "bytes each way",
            "services",
            "cores",
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
                case.cores,
                variant if variant in (*IN_C, ECHO) else f"tensor stream, {variant}",
                spread,
                case.ratio(variant, FLOOR),
                case.ratio(variant, ECHO),
                case.num_bytes * case.num_services / MIB / spread.median * 1e3,
            )
    return table


def _draw(axis: Any, *, cases: Sequence[Case], transport: str) -> None:
    for count in dict.fromkeys(case.num_services for case in cases):
        own = [case for case in cases if case.num_services == count and case.cores == ANY.label]
        spreads = [ratio_of(_best(case, transport), case.samples[ECHO]) for case in own]
        draw_spreads(axis, [case.num_bytes for case in own], spreads, f"services: {count}")
    axis.axhline(1.0, color="black", linewidth=0.8)
    label_axes(
        axis,
        f"tensor stream, {transport} ÷ {ECHO} (devices SIMULATED, no time)",
        "bytes each way and service",
        "ratio",
    )


def _best(case: Case, transport: str) -> Sequence[float]:
    """As one exchange where it can be one, else frame by frame."""
    return case.samples.get(transport) or case.samples[FRAMES[transport]]


def shown_size(num_bytes: int) -> str:
    """Bytes as people say them."""
    return f"{num_bytes / MIB:g} MiB" if num_bytes >= MIB else f"{num_bytes / KIB:g} KiB"
