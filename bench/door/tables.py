"""The tables of bench.door."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.door.leaving import Left
from bench.door.timed import Timed
from bench.harness.report import Report
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table

GRPC, GRPC_EACH, HTTP = "gRPC", "gRPC, a connection each", "HTTP"
FIGURES = ("tokens_per_second", "first_token_ms", "gateway_micros")


@dataclass(frozen=True)
class Case:
    """So many requests at once, over each door in turn."""

    num_requests: int
    samples: Mapping[str, Sequence[Timed]]

    def values(self, door: str, figure: str) -> list[float]:
        """A figure of each round."""
        return [getattr(timed, figure) for timed in self.samples[door]]

    def ratio(self, figure: str, door: str) -> Spread:
        """Of HTTP to another door, round by round."""
        return ratio_of(self.values(HTTP, figure), self.values(door, figure))


def fill(report: Report, cases: Sequence[Case]) -> None:
    """Add what the cases show."""
    table = Table(
        "HTTP and gRPC",
        ("requests", "door", "tokens/s", "ms to the first token", "gateway's CPU, µs a token"),
    )
    ratios = Table(
        "HTTP ÷ gRPC",
        ("requests", "÷", "tokens/s", "time to the first token", "gateway's CPU a token"),
    )
    for case in cases:
        for door in case.samples:
            spreads = (spread_of(case.values(door, figure)) for figure in FIGURES)
            table.add(str(case.num_requests), door, *spreads)
        for door in (GRPC, GRPC_EACH):
            spreads = (case.ratio(figure, door) for figure in FIGURES)
            ratios.add(str(case.num_requests), door, *spreads)
    report.tables += [table, ratios]
    report.samples = {
        f"{case.num_requests}, {door}, {figure}": case.values(door, figure)
        for case in cases
        for door in case.samples
        for figure in FIGURES
    }


def leavers(count: int, before: Left, after: Left) -> Table:
    """What the gateway and its router hold before and after so many clients have left."""
    table = Table(
        f"before and after {count:,} clients that leave within 0.4 s",
        ("held", "before", "after"),
    )
    table.add("descriptors of the gateway", before.descriptors, after.descriptors)
    table.add("resident memory of the gateway, MiB", before.resident_mib, after.resident_mib)
    table.add("sequences that run", before.running, after.running)
    table.add("free tokens of the KV cache", before.free_kv_tokens, after.free_kv_tokens)
    return table
