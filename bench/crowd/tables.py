"""The tables of `bench.crowd`: each kind of hostile client, each burst, and the figures that have
targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from bench.crowd.loads import UNANSWERED
from bench.crowd.probe import FIELDS
from bench.crowd.wire import RESET
from bench.harness.report import Report
from bench.harness.statistics import Spread, spread_of
from bench.harness.table import Table
from services.cli.bench.statistics import percentiles

CANCELLED = str(grpc.StatusCode.CANCELLED.value[0])
STATUS_NAMES = {
    str(UNANSWERED): "no answer yet",
    str(RESET): "reset",
    **{str(status.value[0]): status.name for status in grpc.StatusCode},
}
# Of a block: what the loop's thread was doing, as the kernel says.
SPENT = FIELDS[1:]

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Attack:
    """What one kind of hostile client did to the gateway; memory since its start."""

    kind: str
    block_ms: Mapping[str, float]
    peak_mib: float
    children_mib: float
    gateway_share: float
    result: Result


@dataclass(frozen=True)
class Burst:
    """Many calls at once, and one request after the other by somebody else meanwhile."""

    crowd: Result
    other: Result
    block_ms: Mapping[str, float]


@dataclass(frozen=True)
class Overload:
    """As many requests as can be served, and then many times as many; the shares are of a core."""

    served: Result
    offered: Result
    block_ms: Mapping[str, float]
    gateway_share: float
    client_share: float


def add_attacks(report: Report, attacks: Sequence[Attack]) -> None:
    """A row for each kind, with the worst of its rounds."""
    _add_kinds(report, "Hostile clients of each kind", attacks)
    report.samples["attacks"] = [vars(attack) for attack in attacks]


def add_bodies(report: Report, bodies: Sequence[Attack]) -> None:
    """Likewise, of bodies that one client sends one after the other."""
    _add_kinds(report, "Bodies of 4 MiB over HTTP of each kind", bodies)
    report.samples["bodies"] = [vars(body) for body in bodies]


def add_body_figures(report: Report, bodies: Sequence[Attack]) -> None:
    """The figure that has a target."""
    longest = max(body.block_ms["longest"] for body in bodies)
    report.tables[-1].add("longest block of the loop by a body over HTTP, ms", longest, 100, 20)


def _add_kinds(report: Report, title: str, attacks: Sequence[Attack]) -> None:
    table = Table(
        title,
        (
            "kind",
            "calls a round",
            "longest block, ms",
            *SPENT,
            "peak, MiB",
            "its processes, MiB",
            "gateway's cores",
            "answers of a round",
        ),
    )
    for kind in dict.fromkeys(attack.kind for attack in attacks):
        rounds = [attack for attack in attacks if attack.kind == kind]
        worst = max(rounds, key=lambda attack: attack.block_ms["longest"])
        table.add(
            *(kind, worst.result["num_calls"], *worst.block_ms.values()),
            *(max(attack.peak_mib for attack in rounds), worst.children_mib),
            *(worst.gateway_share, _said(worst.result["statuses"])),
        )
    report.tables.append(table)


def add_bursts(report: Report, bursts: Sequence[Burst]) -> None:
    """A row for each."""
    table = Table(
        "Many calls at once of one client, and another client's first tokens meanwhile",
        (
            "burst",
            "s",
            "refused within, p50, ms",
            "p99",
            "other's first token, p50, ms",
            "p99",
            "requests",
            "longest block, ms",
            *SPENT,
            "answers",
        ),
    )
    for number, burst in enumerate(bursts, 1):
        table.add(
            *(number, burst.crowd["seconds"]),
            *percentiles(burst.crowd["refused_ms"] or [0.0], 50, 99),
            *percentiles(burst.other["first_token_ms"], 50, 99),
            *(len(burst.other["first_token_ms"]), *burst.block_ms.values()),
            _said(burst.crowd["statuses"]),
        )
    report.tables.append(table)
    report.samples["bursts"] = [vars(burst) for burst in bursts]


def add_figures(
    report: Report,
    attacks: Sequence[Attack],
    bursts: Sequence[Burst],
    overloads: Sequence[Overload],
) -> None:
    """The figures that have targets, with what they have to be."""
    table = Table("Against the targets", ("figure", "measured", "must", "aim"))
    longest = max(attack.block_ms["longest"] for attack in attacks)
    table.add("longest block of the loop under hostile clients, ms", longest, 100, 20)
    table.add(
        "gateway's peak memory meanwhile, MiB", max(one.peak_mib for one in attacks), 400, 200
    )
    cancelled = sum(burst.crowd["statuses"].get(CANCELLED, 0) for burst in bursts)
    table.add("many calls at once: ended with CANCELLED", cancelled, 0, 0)
    first = [each for burst in bursts for each in burst.other["first_token_ms"]]
    table.add("a second client's first token meanwhile, p99, ms", _p99(first), 1000, 200)
    refused = [_p99(one.offered["refused_ms"]) for one in overloads]
    table.add("offered 10 x: refused within, p99, ms", spread_of(refused), 50, 10)
    table.add("accepted: time between tokens, p99 ÷ at capacity", _slower(overloads), 1.5, 1.2)
    table.add(
        "accepted: time between tokens, p50 ÷ at capacity", _slower(overloads, 50), None, None
    )
    served = spread_of([one.served["completed_per_second"] for one in overloads])
    table.add("at capacity: requests/s", served, None, None)
    offered = spread_of([one.offered["offered_per_second"] for one in overloads])
    table.add("offered 10 x: requests/s that were sent", offered, None, None)
    kept = spread_of([one.offered["completed_per_second"] for one in overloads])
    table.add("offered 10 x: requests/s that were served", kept, None, None)
    blocks = spread_of([one.block_ms["longest"] for one in overloads])
    table.add("offered 10 x: longest block of the loop, ms", blocks, None, None)
    gateway = spread_of([one.gateway_share for one in overloads])
    table.add("offered 10 x: the gateway's share of its core", gateway, None, None)
    client = spread_of([one.client_share for one in overloads])
    table.add("offered 10 x: the clients' share of theirs", client, None, None)
    report.tables.append(table)
    report.samples["overloads"] = [vars(one) for one in overloads]
    report.panels.append(lambda axis: _draw_attacks(axis, attacks))


def _slower(overloads: Sequence[Overload], percentile: int = 99) -> Spread:
    return spread_of(
        [
            percentiles(one.offered["inter_token_ms"], percentile)[0]
            / percentiles(one.served["inter_token_ms"], percentile)[0]
            for one in overloads
        ]
    )


def _p99(samples: Sequence[float]) -> float:
    return percentiles(samples or [0.0], 99)[0]


def _said(statuses: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count} {STATUS_NAMES.get(status, status)}" for status, count in statuses.items()
    )


def _draw_attacks(axis: Any, attacks: Sequence[Attack]) -> None:
    kinds = list(dict.fromkeys(attack.kind for attack in attacks))
    longest = [
        max(one.block_ms["longest"] for one in attacks if one.kind == kind) for kind in kinds
    ]
    axis.barh(kinds, longest)
    axis.axvline(100, linestyle="--")
    axis.set_title("longest block of the gateway's loop, ms", fontsize=9)
