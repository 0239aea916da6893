"""What people read of a bench: tables that fit in a hundred columns, or in eighty, and remarks."""

from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich.table import Table

from services.cli.bench.figures import Figures
from services.cli.bench.lag import MAX_LATE_SHARE
from services.cli.bench.receipts import Spent, TimeKind
from services.cli.bench.statistics import Distribution

MILLIS_PER_SECOND = 1000
WIDE = 100
# So many fit beside each other where each brings its milliseconds and its share.
MAX_COMPARED = 4
MAX_COMPARED_NARROWLY = 3
LATENCIES = (
    ("ttft", "first token (TTFT)"),
    ("itl", "between tokens (ITL)"),
    ("tpot", "per output token (TPOT)"),
    ("e2e", "end to end (E2E)"),
)

HEADINGS = ("done", "failed", "requests\nper s", "tokens/s\nout", "tokens/s\nin", "comm.\nshare")
# Where they have place here; each load's latencies have a table of their own below.
LATENCY_HEADINGS = ("TTFT\np50", "TTFT\np99", "ITL\np50", "ITL\np99")
GOOD_HEADINGS = ("good\nper s", "good\nshare")


def tables(all_figures: Sequence[Figures], width: int = WIDE) -> Iterator[Table]:
    """All of them: the loads in a line each, the latencies of each, and where the time went. They
    fit in `width` columns, down to eighty.
    """
    is_wide = width >= WIDE
    yield _throughput(all_figures, is_wide)
    for figures in all_figures:
        if figures.num_completed:
            yield _latencies(figures)
    measured = [
        (figures.label, figures.spent)
        for figures in all_figures
        if figures.num_completed and figures.spent is not None
    ]
    at_once = MAX_COMPARED if is_wide else MAX_COMPARED_NARROWLY
    for start in range(0, len(measured), at_once):
        yield _spent(measured[start : start + at_once], is_wide)


def remarks(figures: Figures) -> Iterator[str]:
    """What is to be known about a load before its figures are believed."""
    for reason in figures.reasons:
        yield f"{figures.label}: failed: {reason}"
    if figures.num_unfinished:
        yield f"{figures.label}: in flight when it was broken off: {figures.num_unfinished}"
    client = figures.client
    if client.late_share > MAX_LATE_SHARE:
        yield (
            f"{figures.label}: this client was late itself for {client.late_share:.0%} of the "
            "time (above "
            f"{MAX_LATE_SHARE:.0%}); its latencies contain that"
        )
    late = figures.latencies.late
    if late is not None and late.p99 * MILLIS_PER_SECOND >= 10:
        yield (
            f"{figures.label}: requests were sent late by up to "
            f"{shown(late.max * MILLIS_PER_SECOND)} ms "
            f"(p99 {shown(late.p99 * MILLIS_PER_SECOND)}); latencies count from when they were due"
        )


def shown(value: float | None) -> str:
    """A figure with three significant digits or more; a dash for none."""
    if value is None:
        return "-"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def _throughput(all_figures: Sequence[Figures], is_wide: bool) -> Table:
    with_goodput = any(figures.good_share is not None for figures in all_figures)
    headings = ["load", *HEADINGS, *(LATENCY_HEADINGS if is_wide else ())]
    title = "throughput, and latency in ms" if is_wide else "throughput"
    table = _table(title, [*headings, *(GOOD_HEADINGS if with_goodput else ())])
    for figures in all_figures:
        latencies = figures.latencies
        cells = [
            figures.label,
            str(figures.num_completed),
            str(figures.num_failed),
            shown(figures.requests_per_second),
            shown(figures.output_tokens_per_second),
            shown(figures.input_tokens_per_second),
            _communication(figures),
        ]
        for spread in (latencies.ttft, latencies.itl) if is_wide else ():
            cells += [_millis(spread.p50), _millis(spread.p99)] if spread else ["-", "-"]
        if with_goodput:
            share = figures.good_share
            cells += [
                shown(figures.goodput_requests_per_second),
                "-" if share is None else f"{share:.0%}",
            ]
        table.add_row(*cells)
    return table


def _latencies(figures: Figures) -> Table:
    table = _table(
        f"latency in ms: {figures.label}", ("", "mean", "p50", "p90", "p95", "p99", "max")
    )
    for name, label in LATENCIES:
        spread: Distribution | None = getattr(figures.latencies, name)
        if spread is not None:
            values = (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99, spread.max)
            table.add_row(label, *map(_millis, values))
    return table


def _communication(figures: Figures) -> str:
    if figures.spent is None or not figures.num_completed:
        return "-"
    return f"{figures.spent.shares[TimeKind.COMMUNICATION]:.0%}"


def _spent(labelled: Sequence[tuple[str, Spent]], with_kind: bool) -> Table:
    title = "where a request's time went: median ms and share"
    labels = [label for label, _ in labelled]
    table = _table(title, ("", *(["kind"] if with_kind else []), *labels))
    all_spent = [spent for _, spent in labelled]
    for index, part in enumerate(all_spent[0].parts):
        parts = [spent.parts[index] for spent in all_spent]
        if any(part.milliseconds for part in parts):
            cells = [f"{shown(part.milliseconds)}  {part.share:>6.1%}" for part in parts]
            table.add_row(part.label, *([part.kind.value] if with_kind else []), *cells)
    blank = [""] if with_kind else []
    for kind in TimeKind:
        shares = [spent.shares[kind] for spent in all_spent]
        table.add_row(
            f"all {kind.value}", *blank, *(f"{share:>6.1%}" for share in shares), style="bold"
        )
    steps = [spent.decode_step_milliseconds for spent in all_spent]
    table.add_row("a decode step", *blank, *(f"{shown(step)} ms" for step in steps))
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, heading in enumerate(headings):
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=not number)
    return table


def _millis(seconds: float | None) -> str:
    return shown(None if seconds is None else seconds * MILLIS_PER_SECOND)
