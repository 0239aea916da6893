"""The tables and panels of `bench.tracing`."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.harness.report import Report
from bench.harness.statistics import ratio_of, spread_of
from bench.harness.table import Table
from bench.rig.generated import Generated
from bench.tracing.wire import DELAY_SECONDS, WireTimes
from moesaic.v1 import common_pb2

OFF, DEFAULT, LAYERS = "off", "by default", "every layer"


def add_cost(report: Report, samples: Mapping[str, Sequence[Generated]]) -> None:
    """Tokens a second and CPU time of each variant, and their ratio to no tracing."""
    table = Table(
        "What tracing costs",
        (
            "tracing",
            "tokens/s",
            "÷ off",
            "CPU ms a token",
            "÷ off",
            *(f"{name}: CPU ÷ off" for name in _services(samples)),
        ),
    )
    rates = {name: [one.tokens_per_second for one in runs] for name, runs in samples.items()}
    for name, runs in samples.items():
        table.add(
            name,
            spread_of(rates[name]),
            ratio_of(rates[name], rates[OFF]),
            spread_of(_cpu_ms(runs)),
            ratio_of(_cpu_ms(runs), _cpu_ms(samples[OFF])),
            *(
                ratio_of(_cpu_ms(runs, one), _cpu_ms(samples[OFF], one))
                for one in _services(samples)
            ),
        )
    report.tables.append(table)
    report.samples["cost"] = {
        name: [one.as_object() for one in runs] for name, runs in samples.items()
    }
    report.panels.append(lambda axis: _draw_rates(axis, rates))


def add_wire(report: Report, times: Mapping[str, WireTimes]) -> None:
    """The traced wire time of the delayed service."""
    added = f"added, ms ({DELAY_SECONDS * 1e3:g} were)"
    table = Table(
        "Traced wire time of a service behind a relay",
        ("router", "undelayed, ms", "delayed, ms", added),
    )
    for name, one in times.items():
        table.add(
            name, spread_of(one.undelayed), spread_of(one.delayed), spread_of(one.differences)
        )
    report.tables.append(table)
    report.samples["wire_ms"] = {name: vars(one) for name, one in times.items()}
    report.panels.append(lambda axis: _draw_wire(axis, times))


def add_receipts(report: Report, receipts: Sequence[common_pb2.LatencyReceipt]) -> None:
    """How much of each request's time its receipt accounts for."""
    shares = sorted(1 - one.unaccounted_nanos / one.end_to_end_nanos for one in receipts)
    table = Table(
        "Measured parts of a receipt ÷ end to end", ("requests", "worst", "median", "best")
    )
    table.add(len(shares), shares[0], median(shares), shares[-1])
    report.tables.append(table)
    report.samples["receipt_shares"] = shares


def _services(samples: Mapping[str, Sequence[Generated]]) -> Sequence[str]:
    return tuple(samples[OFF][0].cpu_seconds)


def _cpu_ms(runs: Sequence[Generated], service: str | None = None) -> list[float]:
    return [
        (sum(one.cpu_seconds.values()) if service is None else one.cpu_seconds[service])
        / one.num_tokens
        * 1e3
        for one in runs
    ]


def _draw_rates(axis: Any, rates: Mapping[str, Sequence[float]]) -> None:
    axis.boxplot(list(rates.values()), tick_labels=list(rates))
    axis.set_title("tokens/s by tracing", fontsize=9)


def _draw_wire(axis: Any, times: Mapping[str, WireTimes]) -> None:
    axis.boxplot([one.differences for one in times.values()], tick_labels=list(times))
    axis.axhline(DELAY_SECONDS * 1e3, linestyle="--")
    axis.set_title("wire time that a delay adds, ms", fontsize=9)
