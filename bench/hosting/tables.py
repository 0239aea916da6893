"""The tables and the plot of bench.hosting.__main__."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from bench.harness.plot import label_axes
from bench.harness.report import Report
from bench.harness.statistics import ratio_of, spread_of
from bench.harness.table import Table
from bench.hosting.findings import Finding
from bench.hosting.moves import Memory
from services.cli.bench.statistics import percentile

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Latencies:
    """Seconds between tokens, in segments that came in turn: without moves, with moves all the
    time, and so on.
    """

    steady: Sequence[Sequence[float]]
    moving: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Cost:
    """What one batch of requests took, and what all expert services held: experts, and their
    processes in RAM.
    """

    tokens_per_second: float
    expert_bytes: int
    resident_bytes: int


def add_disturbances(report: Report, title: str, findings: Sequence[Finding]) -> None:
    """A row for each kind of event, all its rounds together."""
    headings = (
        "event",
        "rounds",
        "requests",
        "failed",
        "altered",
        "longest gap s",
        "worst of all",
        "frames sent again",
    )
    table = Table(title, headings)
    for event in dict.fromkeys(finding.window.event for finding in findings):
        rounds = [finding for finding in findings if finding.window.event == event]
        gaps = [finding.longest_gap for finding in rounds]
        table.add(
            event,
            len(rounds),
            sum(finding.num_requests for finding in rounds),
            sum(len(finding.failures) for finding in rounds),
            sum(len(finding.altered) for finding in rounds),
            spread_of(gaps),
            max(gaps),
            sum(finding.window.num_retries for finding in rounds),
        )
    report.tables.append(table)
    report.samples[title] = [asdict(finding) for finding in findings]
    report.notes += list(
        dict.fromkeys(chain.from_iterable(finding.complaints() for finding in findings))
    )


def add_latencies(report: Report, latencies: Latencies) -> None:
    """Percentiles of the time between tokens, and their ratios in neighbouring segments."""
    title = "time between tokens while experts move all the time, and in turn while none does"
    table = Table(title, ("percentile", "steady ms", "moving ms", "moving ÷ steady"))
    for percent in (50, 90, 99):
        steady, moving = (
            [percentile(segment, percent) * 1e3 for segment in segments]
            for segments in (latencies.steady, latencies.moving)
        )
        table.add(f"p{percent}", spread_of(steady), spread_of(moving), ratio_of(moving, steady))
    report.tables.append(table)
    report.samples[title] = asdict(latencies)

    def draw(axis: Any) -> None:
        for label, segments in (("steady", latencies.steady), ("experts move", latencies.moving)):
            ordered = sorted(gap * 1e3 for segment in segments for gap in segment)
            axis.plot(
                ordered, [1 - number / len(ordered) for number in range(len(ordered))], label=label
            )
        label_axes(axis, "between tokens", "ms", "share of gaps above", log_y=True)

    report.panels.append(draw)


def add_memory(report: Report, memories: Mapping[str, Memory], seconds: float) -> None:
    """What each service took at most while experts moved."""
    num_loaded = sum(memory.num_loaded for memory in memories.values())
    title = (
        f"memory while {num_loaded} experts were loaded and as many let go, in {seconds:.0f} s "
        "under load"
    )
    headings = (
        "service",
        "messages seen",
        "experts MiB at most",
        "expert_memory MiB",
        "over it, bytes",
        "RSS grew MiB",
    )
    table = Table(title, headings)
    for name, memory in sorted(memories.items()):
        table.add(
            name,
            memory.num_messages,
            memory.most_bytes / MEBIBYTE,
            memory.limit_bytes / MEBIBYTE,
            memory.over_bytes,
            (memory.resident_most - memory.resident_before) / MEBIBYTE,
        )
    report.tables.append(table)
    report.samples["memory"] = {
        name: memory.as_object() for name, memory in sorted(memories.items())
    }


def add_costs(report: Report, costs: Mapping[str, Sequence[Cost]]) -> None:
    """What a second replica of every expert takes."""
    table = Table(
        "the same requests with coverage 1 and 2 in turn",
        ("coverage", "tokens/s", "÷ coverage 1", "experts MiB", "expert processes' RSS MiB"),
    )
    base = [cost.tokens_per_second for cost in next(iter(costs.values()))]
    for coverage, taken in costs.items():
        rates = [cost.tokens_per_second for cost in taken]
        resident = spread_of([cost.resident_bytes / MEBIBYTE for cost in taken])
        table.add(
            coverage,
            spread_of(rates),
            ratio_of(rates, base),
            taken[-1].expert_bytes / MEBIBYTE,
            resident,
        )
    report.tables.append(table)
    report.samples["costs"] = {
        coverage: [asdict(cost) for cost in taken] for coverage, taken in costs.items()
    }
