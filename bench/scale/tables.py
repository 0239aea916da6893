"""The tables and the plots of bench.scale.__main__."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.harness.plot import draw_spreads, label_axes
from bench.harness.report import Report
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table
from bench.rig.transports import GRPC, NATIVE, RATIO
from bench.scale.load import Load, LoadSample

CPU_HEADINGS = ("router CPU µs/frame", "service CPU µs/frame")


@dataclass(frozen=True)
class Taken:
    """Samples of one load over one transport; `label` is what is varied."""

    label: str
    transport: str
    load: Load
    samples: Sequence[LoadSample]

    @property
    def rates(self) -> list[float]:
        """Rows per second, a figure for each round."""
        return [sample.rows_per_second for sample in self.samples]

    @property
    def rates_each(self) -> list[float]:
        """The same, of one of the services."""
        return [rate / self.load.num_services for rate in self.rates]

    @property
    def step_ms(self) -> Spread:
        """What a step took."""
        return spread_of([sample.step_ms for sample in self.samples])

    @property
    def held_ms(self) -> float:
        """What simulated devices took of it."""
        return self.samples[0].held_ms

    @property
    def beyond_ms(self) -> Spread:
        """What a layer took beyond that."""
        num_layers = self.load.num_layers
        return spread_of([(it.step_ms - it.held_ms) / num_layers for it in self.samples])

    @property
    def cpu(self) -> tuple[Spread, Spread]:
        """As CPU_HEADINGS say."""
        return (
            spread_of([it.router_cpu_ms / it.num_frames * 1e3 for it in self.samples]),
            spread_of([it.service_cpu_ms / it.num_frames * 1e3 for it in self.samples]),
        )


def add_services(report: Report, title: str, heading: str, all_taken: Sequence[Taken]) -> None:
    """What more services bring, over the first load of the same transport."""
    table = Table(
        heading,
        (
            "services",
            "transport",
            "step ms",
            "held ms",
            "rows/s",
            "rows/s ÷ (services x one service's)",
            f"rows/s, {RATIO}",
            *CPU_HEADINGS,
        ),
    )
    for taken in all_taken:
        table.add(
            taken.label,
            taken.transport,
            taken.step_ms,
            taken.held_ms,
            spread_of(taken.rates),
            efficiency(taken, all_taken),
            _against_grpc(taken, all_taken),
            *taken.cpu,
        )
    _keep(report, title, table, all_taken)

    def draw(axis: Any) -> None:
        for transport, own in _by_transport(all_taken):
            places = [taken.load.num_services for taken in own]
            spreads = [efficiency(taken, all_taken) for taken in own]
            draw_spreads(axis, places, spreads, transport)
        axis.axhline(0.7, color="red", linewidth=0.8, label="must")
        label_axes(
            axis,
            f"{title} (SIMULATED devices, 40 ms)",
            "services",
            "throughput ÷ (services x one's)",
        )

    report.panels.append(draw)


def add_sweep(report: Report, title: str, devices: str, all_taken: Sequence[Taken]) -> None:
    """What a layer takes beyond the devices' time."""
    table = Table(
        f"{title}: {all_taken[0].load.num_services} services, {devices}",
        (
            title,
            "transport",
            "step ms",
            "held by devices ms",
            "beyond that, ms a layer",
            "rows/s",
            f"rows/s, {RATIO}",
            *CPU_HEADINGS,
        ),
    )
    for taken in all_taken:
        table.add(
            taken.label,
            taken.transport,
            taken.step_ms,
            taken.held_ms,
            taken.beyond_ms,
            spread_of(taken.rates),
            _against_grpc(taken, all_taken),
            *taken.cpu,
        )
    _keep(report, title, table, all_taken)

    def draw(axis: Any) -> None:
        for transport, own in _by_transport(all_taken):
            places = [int(taken.label) for taken in own]
            draw_spreads(axis, places, [taken.beyond_ms for taken in own], transport)
        label_axes(axis, f"{title} (SIMULATED devices)", title, "ms a layer beyond the held time")

    report.panels.append(draw)


def efficiency(taken: Taken, all_taken: Sequence[Taken]) -> Spread:
    """Rows per second over those of the fewest services over the same transport, each times their
    number.
    """
    own = [other for other in all_taken if other.transport == taken.transport]
    fewest = min(own, key=lambda other: other.load.num_services)
    return ratio_of(taken.rates_each, fewest.rates_each)


def _against_grpc(taken: Taken, all_taken: Sequence[Taken]) -> Spread | None:
    if taken.transport != NATIVE:
        return None
    theirs = [it.rates for it in all_taken if (it.label, it.transport) == (taken.label, GRPC)]
    return ratio_of(taken.rates, theirs[0]) if theirs else None


def _by_transport(all_taken: Sequence[Taken]) -> list[tuple[str, list[Taken]]]:
    transports = dict.fromkeys(taken.transport for taken in all_taken)
    return [
        (transport, [taken for taken in all_taken if taken.transport == transport])
        for transport in transports
    ]


def _keep(report: Report, title: str, table: Table, all_taken: Sequence[Taken]) -> None:
    report.tables.append(table)
    report.samples[title] = {
        f"{taken.label}, {taken.transport}": [vars(sample) for sample in taken.samples]
        for taken in all_taken
    }
