"""The tables of bench.real_size.__main__."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from bench.harness.plot import draw_spreads, label_axes
from bench.harness.report import Report
from bench.harness.statistics import spread_of
from bench.harness.table import Cell, Table
from bench.real_size.disturbed import Kill, Moves
from bench.real_size.embedded import EmbeddedStarts
from bench.real_size.memory import Taken
from bench.real_size.peers import PeerResult
from bench.real_size.prompt import FirstToken
from bench.real_size.sizes import Size
from bench.real_size.tokens import Rates

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Start:
    """Seconds from the command to the line that says the cluster is ready, and of reading all files
    once.
    """

    size: Size
    coverage: int
    seconds: float
    read_seconds: float


@dataclass
class Found:
    """All that was measured so far."""

    starts: list[Start] = field(default_factory=list)
    rates: list[Rates] = field(default_factory=list)
    first_tokens: dict[str, FirstToken] = field(default_factory=dict)  # by the size's name
    kills: list[Kill] = field(default_factory=list)
    moves: list[Moves] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    peers: list[PeerResult] = field(default_factory=list)
    embedded: EmbeddedStarts = field(default_factory=EmbeddedStarts)


def fill(report: Report, found: Found) -> None:
    """Add a table for everything that was measured."""
    tables = (
        _embedded(found.embedded),
        _starts(found.starts),
        _rates(found.rates),
        _first_tokens(found.first_tokens),
        _kills(found.kills),
        _moves(found.moves),
        _taken(found.taken),
        _peers(found.peers),
    )
    report.tables += [table for table in tables if table.rows]
    if found.rates:
        report.panels.append(partial(_draw, rates=found.rates))
    report.samples |= _samples(found)


def _embedded(found: EmbeddedStarts) -> Table:
    table = Table(
        "the embedded model: seconds until it serves, with the files in the page cache",
        ("command", "s"),
    )
    for command, seconds in (
        ("`moesaic serve` to ready", found.to_ready),
        ("`moesaic generate` to its first token", found.to_first_token),
        ("its processes' CPU, until they have ended", found.cpu),
    ):
        if seconds:
            table.add(command, spread_of(seconds))
    return table


def _starts(starts: Sequence[Start]) -> Table:
    table = Table(
        "start: seconds from `moesaic serve` to its line that says ready",
        ("model", "coverage", "ready s", "reading all files once s", "ready ÷ reading"),
    )
    for start in starts:
        seconds = (start.seconds, start.read_seconds, start.seconds / start.read_seconds)
        table.add(str(start.size), start.coverage, *seconds)
    return table


def _rates(rates: Sequence[Rates]) -> Table:
    table = Table(
        "tokens per second at the client, and decode's share of what reading the weights allows",
        (
            "model, requests",
            "tokens/s, prompts counted in",
            "decode tokens/s",
            "active experts",
            "GB a step",
            "memory GB/s",
            "limit tokens/s",
            "decode ÷ limit",
        ),
    )
    for each in rates:
        table.add(
            f"{each.size.name}, {each.num_requests}",
            spread_of([sample.tokens_per_second for sample in each.samples]),
            spread_of(each.decode),
            each.num_active,
            each.step_bytes / 1e9,
            spread_of(each.memory_rates).scaled(1e-9),
            spread_of(each.limits),
            each.share,
        )
    return table


def _first_tokens(first_tokens: Mapping[str, FirstToken]) -> Table:
    table = Table(
        "a prompt of 512 tokens: ms to its first token",
        ("model", "engine", "ms", "the cluster's ÷ it"),
    )
    for name, each in first_tokens.items():
        table.add(name, "the cluster", spread_of(each.ours), None)
        for setting, theirs in each.theirs.items():
            ratio = each.ratio if setting == each.best else None
            table.add(name, f"transformers, {setting}", spread_of(theirs), ratio)
    return table


def _kills(kills: Sequence[Kill]) -> Table:
    table = Table(
        "one of two expert services gets SIGKILL, two streams",
        (
            "model, coverage",
            "requests",
            "failed",
            "longest silence of all streams s",
            "of one stream s",
            "usual p99 ms",
            "whole again s",
            "reading its share once s",
            "silence of all ÷ reading",
        ),
    )
    for kill in kills:
        table.add(
            f"{kill.size.name}, {kill.coverage}",
            kill.num_requests,
            len(kill.failures),
            kill.longest_silence,
            kill.longest_gap,
            kill.steady_p99 * 1e3,
            kill.whole_seconds,
            kill.share_seconds,
            # With another replica nothing has to be read.
            kill.longest_silence / kill.share_seconds if kill.coverage == 1 else None,
        )
    return table


def _moves(moves: Sequence[Moves]) -> Table:
    table = Table(
        "experts spread evenly (as `moesaic rebalance --even` does), two streams",
        (
            "model",
            "moved",
            "in s",
            "done",
            "uneven by",
            "MB/s",
            "failed",
            "longest gap ms",
            "usual p99 ms",
            "gap ÷ p99",
        ),
    )
    for each in moves:
        table.add(
            each.size.name,
            each.num_moved,
            each.seconds,
            "yes" if each.is_done else "no",
            "order" if each.was_skewed else "the kill",
            each.bytes_per_second / 1e6,
            each.num_failed,
            each.longest_gap * 1e3,
            each.steady_p99 * 1e3,
            each.longest_gap / each.steady_p99,
        )
    return table


def _taken(taken: Sequence[Taken]) -> Table:
    table = Table(
        "anonymous memory of each expert service",
        ("service", "when", "anonymous MiB", "its experts MiB", "÷ its experts", "over them MiB"),
    )
    for each in taken:
        table.add(
            each.service,
            each.moment,
            each.anonymous_bytes / MEBIBYTE,
            each.expert_bytes / MEBIBYTE,
            each.ratio,
            each.over_bytes / MEBIBYTE,
        )
    return table


def _peers(peers: Sequence[PeerResult]) -> Table:
    table = Table(
        "other engines, after the cluster, as their own programs say",
        ("engine, requests", "tokens/s", "decode tokens/s", "512-token prompt ms"),
    )
    for peer in peers:
        cells: tuple[Cell, ...] = (
            peer.tokens_per_second,
            peer.decode_tokens_per_second,
            peer.first_token_ms,
        )
        table.add(f"{peer.engine}, {peer.num_requests}", *cells)
    return table


def _samples(found: Found) -> dict[str, Any]:
    return {
        "embedded": asdict(found.embedded),
        "starts": [asdict(start) for start in found.starts],
        "rates": [
            {
                "model": each.size.name,
                "num_requests": each.num_requests,
                "num_active": each.num_active,
                "memory bytes/s": each.memory_rates,
                "generated": [sample.as_object() for sample in each.samples],
            }
            for each in found.rates
        ],
        "first tokens, ms": {
            name: {
                "cluster": each.ours,
                **{str(setting): theirs for setting, theirs in each.theirs.items()},
            }
            for name, each in found.first_tokens.items()
        },
        "kills": [asdict(kill) for kill in found.kills],
        "moves": [asdict(each) for each in found.moves],
        "memory": [asdict(each) for each in found.taken],
        "peers": [asdict(peer) for peer in found.peers],
    }


def _draw(axis: Any, *, rates: Sequence[Rates]) -> None:
    places = [each.num_requests for each in rates]
    draw_spreads(axis, places, [spread_of(each.decode) for each in rates], "decode")
    draw_spreads(axis, places, [spread_of(each.limits) for each in rates], "limit by reading")
    label_axes(axis, rates[0].size.name, "concurrent requests", "tokens/s", log_y=True)
