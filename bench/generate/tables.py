"""The tables and the plots of bench.generate.__main__."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bench.generate.cases import (
    CLIENT,
    ROUTER,
    SERVICES,
    TRANSFORMERS,
    Case,
    between_tokens_ms,
    cpu_seconds,
    decode_parts_ms,
    decode_step_ms,
    first_token_ms,
    tokens_per_second,
)
from bench.generate.kinds import pairs
from bench.harness.plot import draw_spreads, label_axes
from bench.harness.report import Report
from bench.harness.statistics import Spread, spread_of
from bench.harness.table import Cell, Table
from bench.rig.generated import Generated
from services.cli.bench.statistics import percentile

WHO = "model, requests"


def fill(report: Report, cases: Sequence[Case]) -> None:
    """Add everything that the cases show."""
    report.tables += [_rates(cases), _latencies(cases), _cpu(cases), _budget(cases)]
    if any(case.kernel_micros for case in cases):
        report.tables.append(_neither(cases))
        report.notes.append(NEITHER)
    for of, to in pairs(cases[0].transports):
        report.tables.append(_ratios(cases, of, to))
    report.tables.append(_settings(cases))
    report.notes += [_agreement(case, transport) for case, transport in _each(cases)]
    report.samples = {case.label: _samples(case) for case in cases}
    for name in dict.fromkeys(case.model for case in cases):
        report.panels.append(
            partial(_draw, model=name, cases=[case for case in cases if case.model == name])
        )


def _each(cases: Sequence[Case]) -> Iterator[tuple[Case, str]]:
    return ((case, transport) for case in cases for transport in case.transports)


def _samples(case: Case) -> dict[str, object]:
    return {
        **{
            party: [sample.as_object() for sample in taken] for party, taken in case.samples.items()
        },
        "probes": {str(setting): probe.as_object() for setting, probe in case.probes.items()},
        "trunk's kernels, µs": case.kernel_micros,
    }


def _rates(cases: Sequence[Case]) -> Table:
    table = Table(
        "tokens per second, prompts counted in the time",
        (
            WHO,
            "transport",
            CLIENT,
            ROUTER,
            TRANSFORMERS,
            "its setting",
            "client ÷ transformers",
            "router ÷ transformers",
        ),
    )
    for case, transport in _each(cases):
        seats = (case.ours(CLIENT, transport), case.ours(ROUTER, transport), case.theirs)
        table.add(
            case.label,
            transport,
            *(spread_of(list(map(tokens_per_second, seat))) for seat in seats),
            str(case.best),
            case.speed_up(CLIENT, transport),
            case.speed_up(ROUTER, transport),
        )
    return table


def _latencies(cases: Sequence[Case]) -> Table:
    headings = [WHO, "transport"]
    for party in (CLIENT, ROUTER, TRANSFORMERS):
        headings += [f"first token {party}", f"p50 {party}", f"p99 {party}"]
    table = Table(
        "ms to the first token (median), and between tokens (percentiles of all rounds)",
        [*headings, "first token, client ÷ transformers' prefill"],
    )
    for case, transport in _each(cases):
        cells: list[Cell] = []
        for samples in (case.ours(CLIENT, transport), case.ours(ROUTER, transport), case.theirs):
            first = [value for sample in samples for value in sample.first_token_ms]
            between = [value for sample in samples for value in sample.inter_token_ms]
            cells += [percentile(first, 50), percentile(between, 50), percentile(between, 99)]
        table.add(case.label, transport, *cells, case.first_token_ratio(transport))
    return table


def _cpu(cases: Sequence[Case]) -> Table:
    table = Table(
        "CPU seconds for 1,000 new tokens, prompts included",
        (WHO, "transport", *SERVICES, TRANSFORMERS),
    )
    for case, transport in _each(cases):
        ours = case.ours(CLIENT, transport)
        cells = [_cpu_of(ours, service) for service in SERVICES]
        table.add(case.label, transport, *cells, _cpu_of(case.theirs, "transformers"))
    return table


def _cpu_of(samples: Sequence[Generated], service: str) -> Spread:
    return spread_of(list(map(cpu_seconds(service), samples)))


def _budget(cases: Sequence[Case]) -> Table:
    table = Table(
        "where a decode step goes, ms, from the router's receipts",
        ("part", *(f"{case.label}, {transport}" for case, transport in _each(cases))),
    )
    budgets = [decode_parts_ms(case.ours(ROUTER, transport)) for case, transport in _each(cases)]
    for part in budgets[0]:
        table.add(part.replace("_", " "), *(budget[part] for budget in budgets))
    table.add("all", *(sum(budget.values()) for budget in budgets))
    return table


NEITHER = (
    "neither matrix product, attention nor memory: all of a decode step, less its expert compute "
    "(as the receipts have it: of the service that replied first, with decoding and encoding, as "
    "far as it was waited for), less the trunk's kernels (norms, attention, gates and head of all "
    "layers one after the other, alone and over and over, as bench.kernels times them, on a row of "
    "each request in one step and half of the new tokens in the cache: CPU time with reading the "
    "weights in it). The wait for other services counts as neither, whatever they compute"
)


def _neither(cases: Sequence[Case]) -> Table:
    table = Table(
        "what of a decode step is neither matrix product, attention nor memory",
        (WHO, "transport", "step ms", "expert compute ms", "trunk's kernels ms", "neither, %"),
    )
    for case, transport in _each(cases):
        if not case.kernel_micros:
            continue
        kernels = spread_of(case.kernel_micros).scaled(1e-3)
        parts = [decode_parts_ms([sample]) for sample in case.ours(ROUTER, transport)]
        steps = [sum(of.values()) for of in parts]
        computing = [of["expert_compute"] for of in parts]
        shares = [
            100 * (step - compute - kernels.median) / step
            for step, compute in zip(steps, computing, strict=True)
        ]
        spreads = (spread_of(steps), spread_of(computing), kernels, spread_of(shares))
        table.add(case.label, transport, *spreads)
    return table


def _ratios(cases: Sequence[Case], of: str, to: str) -> Table:
    figures = [
        ("tokens/s at the client", tokens_per_second, CLIENT),
        ("tokens/s at the router", tokens_per_second, ROUTER),
        ("decode step", decode_step_ms, ROUTER),
        ("first token at the client, median", first_token_ms, CLIENT),
        ("between tokens at the client, p50", between_tokens_ms(50), CLIENT),
        ("between tokens at the client, p99", between_tokens_ms(99), CLIENT),
        *(
            (f"CPU seconds for 1,000 tokens, {service}", cpu_seconds(service), CLIENT)
            for service in SERVICES
        ),
    ]
    table = Table(f"{of} ÷ {to}, of the same round", ("", *(case.label for case in cases)))
    for name, figure, party in figures:
        table.add(name, *(case.ratio(figure, party, of, to) for case in cases))
    same = (case.same_tokens(of, to) for case in cases)
    table.add("requests with the same tokens over both", *same)
    # Rounding depends on the shape of a batch, so that a cluster may differ from itself.
    repeated = (case.repeated_tokens(to) for case in cases)
    table.add(f"with the same over {to} as in the round before", *repeated)
    return table


def _settings(cases: Sequence[Case]) -> Table:
    settings = list(dict.fromkeys(setting for case in cases for setting in case.probes))
    table = Table(
        "transformers' settings, tokens per second",
        ("setting", *(case.label for case in cases)),
    )
    for setting in settings:
        rates = (
            case.probes[setting].tokens_per_second if setting in case.probes else None
            for case in cases
        )
        table.add(f"{setting}: alone, at best", *rates)
    for setting in settings:
        in_turn = [
            list(map(tokens_per_second, case.samples.get(str(setting), ()))) for case in cases
        ]
        if any(in_turn):
            table.add(
                f"{setting}: in turn", *(spread_of(rates) if rates else None for rates in in_turn)
            )
    return table


def _agreement(case: Case, transport: str) -> str:
    ours, theirs = case.ours(CLIENT, transport)[0].token_ids, case.theirs[0].token_ids
    same = sum(list(mine) == list(other) for mine, other in zip(ours, theirs, strict=True))
    return (
        f"{case.label}, {transport}: {same} of {case.num_requests} continuations have the same "
        f"{len(theirs[0])} tokens as "
        "transformers' (rounding depends on the shape of a batch)"
    )


def _draw(axis: Any, *, model: str, cases: Sequence[Case]) -> None:
    places = [case.num_requests for case in cases]
    lines = {
        f"{party}, {transport}": [case.ours(party, transport) for case in cases]
        for party in (CLIENT, ROUTER)
        for transport in cases[0].transports
    }
    for label, seats in {**lines, TRANSFORMERS: [case.theirs for case in cases]}.items():
        spreads = [spread_of(list(map(tokens_per_second, seat))) for seat in seats]
        draw_spreads(axis, places, spreads, label)
    label_axes(axis, f"{model} model", "concurrent requests", "tokens/s", log_y=True)
