"""The tables and the plot of bench.generate.__main__."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.generate.transformers_load import Setting
from bench.harness.plot import draw_spreads, label_axes
from bench.harness.report import Report
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table
from bench.rig.generated import Generated
from services.cli.bench.statistics import percentile
from services.router.times.receipt import Parts

CLIENT, ROUTER, TRANSFORMERS = "at the client", "at the router", "transformers"


@dataclass(frozen=True)
class Case:
    """One model at one number of requests.

    `samples` are by party; transformers is there once for each of the finalists among its settings.
    """

    model: str
    num_requests: int
    finalists: Sequence[Setting]
    probes: Mapping[Setting, Generated]
    samples: Mapping[str, Sequence[Generated]]

    @property
    def label(self) -> str:
        """The case in a few words."""
        return f"{self.model}, {self.num_requests}"

    @property
    def best(self) -> Setting:
        """Transformers' setting with the best median over all rounds: what the cluster is compared
        with.
        """
        return max(
            self.finalists,
            key=lambda setting: spread_of(_rates_of(self.samples[str(setting)])).median,
        )

    def of(self, party: str) -> Sequence[Generated]:
        """A party's samples, one for each round."""
        return self.samples[str(self.best) if party == TRANSFORMERS else party]

    def rates(self, party: str) -> list[float]:
        """Tokens per second, a figure for each round."""
        return _rates_of(self.of(party))

    def ratio(self, party: str) -> Spread:
        """A party's tokens per second over transformers' of the same round."""
        return ratio_of(self.rates(party), self.rates(TRANSFORMERS))


def _rates_of(samples: Sequence[Generated]) -> list[float]:
    return [sample.tokens_per_second for sample in samples]


def fill(report: Report, cases: Sequence[Case]) -> None:
    """Add everything that the cases show."""
    report.tables += [
        _rates(cases),
        _latencies(cases),
        _cpu(cases),
        _budget(cases),
        _settings(cases),
    ]
    report.notes += [_agreement(case) for case in cases]
    report.samples = {
        case.label: {
            party: [sample.as_object() for sample in taken] for party, taken in case.samples.items()
        }
        | {"probes": {str(setting): probe.as_object() for setting, probe in case.probes.items()}}
        for case in cases
    }
    for name in dict.fromkeys(case.model for case in cases):
        report.panels.append(
            partial(_draw, model=name, cases=[case for case in cases if case.model == name])
        )


def _rates(cases: Sequence[Case]) -> Table:
    table = Table(
        "tokens per second, prompts counted in the time",
        (
            "model, requests",
            CLIENT,
            ROUTER,
            TRANSFORMERS,
            "its setting",
            "client ÷ transformers",
            "router ÷ transformers",
        ),
    )
    for case in cases:
        rates = [spread_of(case.rates(party)) for party in (CLIENT, ROUTER, TRANSFORMERS)]
        table.add(case.label, *rates, str(case.best), case.ratio(CLIENT), case.ratio(ROUTER))
    return table


def _latencies(cases: Sequence[Case]) -> Table:
    headings = ["model, requests"]
    for party in (CLIENT, ROUTER, TRANSFORMERS):
        headings += [f"first token {party}", f"p50 {party}", f"p99 {party}"]
    table = Table(
        "ms to the first token (median), and between tokens (percentiles of all rounds)", headings
    )
    for case in cases:
        cells: list[float] = []
        for party in (CLIENT, ROUTER, TRANSFORMERS):
            first = [value for sample in case.of(party) for value in sample.first_token_ms]
            between = [value for sample in case.of(party) for value in sample.inter_token_ms]
            cells += [percentile(first, 50), percentile(between, 50), percentile(between, 99)]
        table.add(case.label, *cells)
    return table


def _cpu(cases: Sequence[Case]) -> Table:
    services = ("gateway", "router", "experts")
    table = Table(
        "CPU seconds for 1,000 new tokens, prompts included",
        ("model, requests", *services, TRANSFORMERS),
    )
    for case in cases:
        cells = [_cpu_of(case.of(CLIENT), service) for service in services]
        table.add(case.label, *cells, _cpu_of(case.of(TRANSFORMERS), "transformers"))
    return table


def _cpu_of(samples: Sequence[Generated], service: str) -> Spread:
    return spread_of([sample.cpu_seconds[service] / sample.num_tokens * 1e3 for sample in samples])


def _budget(cases: Sequence[Case]) -> Table:
    table = Table(
        "where a decode step goes, ms, from the router's receipts",
        ("part", *(case.label for case in cases)),
    )
    budgets = [_decode_step_ms(case.of(ROUTER)) for case in cases]
    for part in budgets[0]:
        table.add(part.replace("_", " "), *(budget[part] for budget in budgets))
    table.add("all", *(sum(budget.values()) for budget in budgets))
    return table


def _decode_step_ms(samples: Sequence[Generated]) -> dict[str, float]:
    phases = [receipt.decode for sample in samples for receipt in sample.receipts]
    steps = sum(phase.steps for phase in phases)
    return {
        part: sum(getattr(phase, f"{part}_nanos") for phase in phases) / steps / 1e6
        for part in vars(Parts())
    }


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
        in_turn = [_rates_of(case.samples.get(str(setting), ())) for case in cases]
        if any(in_turn):
            table.add(
                f"{setting}: in turn", *(spread_of(rates) if rates else None for rates in in_turn)
            )
    return table


def _agreement(case: Case) -> str:
    ours, theirs = (case.of(party)[0].token_ids for party in (CLIENT, TRANSFORMERS))
    same = sum(list(mine) == list(other) for mine, other in zip(ours, theirs, strict=True))
    return (
        f"{case.label}: {same} of {case.num_requests} continuations have the same "
        f"{len(theirs[0])} tokens as "
        "transformers' (rounding depends on the shape of a batch)"
    )


def _draw(axis: Any, *, model: str, cases: Sequence[Case]) -> None:
    for party in (CLIENT, ROUTER, TRANSFORMERS):
        spreads = [spread_of(case.rates(party)) for case in cases]
        draw_spreads(axis, [case.num_requests for case in cases], spreads, party)
    label_axes(axis, f"{model} model", "concurrent requests", "tokens/s", log_y=True)
