"""The findings of bench.placement as tables, plots and samples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from bench.harness.plot import label_axes
from bench.harness.report import Report
from bench.harness.statistics import spread_of
from bench.harness.table import Cell, Table
from bench.placement.cluster import BALANCED, CACHED, EPLB, EVEN, READ, Prices, Shape
from bench.placement.drift import Drift, bytes_per_point, removed
from bench.placement.planner import LARGE, Timing
from bench.placement.replay import Outcome, Replayed
from bench.placement.text import WINDOW
from bench.placement.traffic import DECODE, DECODE_BATCH, MIXED, ONE_TOPIC, PREFILL

DRAWN_SERVICES = 4
MEGABYTE = 1e6


@dataclass(frozen=True)
class Judge:
    """What steps of a kind are judged by: a field of ReplayFigures, and the prices at which it
    matters most.
    """

    step: str
    title: str
    what: str
    heading: str
    drawn_prices: Prices


JUDGES = (
    Judge(PREFILL, f"Steps of {WINDOW} tokens", "imbalance", "imbalance", CACHED),
    Judge(DECODE, f"Decode at batch {DECODE_BATCH}", "active_excess", "active experts", READ),
)


def add_replays(report: Report, found: Sequence[Replayed], expert_bytes: int) -> None:
    """How even each strategy is, and what it costs to come from an even placement to its plan."""
    report.tables += [_replay_table(judge, found, expert_bytes) for judge in JUDGES]
    report.samples["replays"] = [_as_object(replay) for replay in found]
    report.notes += [
        "imbalance is (max - mean) / mean over services of the pairs that each computes; active "
        "experts are those of "
        "the hottest service ÷ the active ones shared out evenly and rounded up; time is the "
        "slowest service's ÷ that "
        "of work shared out evenly, less 1",
        "one topic: the median (and quartiles) over topics, each with a plan of its own, as the "
        "moves are; mixed: a "
        "plan for all, each step with tokens of all",
        f"{EPLB} gives every layer as many slots of a service; what does not divide stays empty",
        "; ".join(map(str, dict.fromkeys(replay.prices for replay in found))),
    ]
    for judge in JUDGES:
        drawn = [
            it
            for it in found
            if (it.shape.num_services, it.prices) == (DRAWN_SERVICES, judge.drawn_prices)
        ]
        if drawn:
            report.panels.append(partial(_draw_replays, judge=judge, found=drawn))


def _replay_table(judge: Judge, found: Sequence[Replayed], expert_bytes: int) -> Table:
    figures = [
        f"{figure}, {topics}" for figure in (judge.heading, "time") for topics in (ONE_TOPIC, MIXED)
    ]
    headings = [
        "services",
        "slots",
        "costs",
        "strategy",
        *figures,
        "moves",
        "MB moved",
        "MB of experts",
    ]
    table = Table(judge.title, headings)
    for replay in found:
        one, mixed = (_outcomes(replay, judge.step, topics) for topics in (ONE_TOPIC, MIXED))
        loads = spread_of([outcome.num_loads for outcome in one])
        replicas = spread_of([outcome.num_replicas for outcome in one])
        table.add(
            replay.shape.num_services,
            replay.shape.num_experts if replay.strategy == EVEN else replay.shape.num_slots,
            replay.prices.name,
            replay.strategy,
            *(_figure(part, what) for what in (judge.what, "time_excess") for part in (one, mixed)),
            loads,
            loads.median * expert_bytes / MEGABYTE,
            replicas.median * expert_bytes / MEGABYTE,
        )
    return table


def _outcomes(replay: Replayed, step: str, topics: str) -> Sequence[Outcome]:
    return next(
        it
        for traffic, it in replay.outcomes.items()
        if (traffic.step, traffic.topics) == (step, topics)
    )


def _figure(outcomes: Sequence[Outcome], what: str) -> Cell:
    values: list[float] = [getattr(outcome.figures, what) for outcome in outcomes]
    return spread_of(values) if len(values) > 1 else values[0]


def _as_object(replay: Replayed) -> dict[str, Any]:
    outcomes = {
        str(traffic): [asdict(outcome) for outcome in found]
        for traffic, found in replay.outcomes.items()
    }
    prices, shape = asdict(replay.prices), asdict(replay.shape)
    return {"shape": shape, "costs": prices, "strategy": replay.strategy, "outcomes": outcomes}


def _draw_replays(axis: Any, *, judge: Judge, found: Sequence[Replayed]) -> None:
    for topics, style in ((ONE_TOPIC, "-"), (MIXED, "--")):
        for strategy, colour in ((EPLB, "C0"), (BALANCED, "C1")):
            replays = [replay for replay in found if replay.strategy == strategy]
            values = [_median(replay, judge, topics) for replay in replays]
            slots = [replay.shape.num_slots for replay in replays]
            axis.plot(
                slots,
                values,
                f"{colour}{style}",
                marker="o",
                markersize=3,
                label=f"{strategy}, {topics}",
            )
        for replay in found:
            if replay.strategy == EVEN:
                value = _median(replay, judge, topics)
                axis.axhline(
                    value, linestyle=style, color="black", linewidth=0.8, label=f"{EVEN}, {topics}"
                )
    title = f"{judge.title}, {DRAWN_SERVICES} services, experts {judge.drawn_prices.name}"
    label_axes(axis, title, "slots of a layer", judge.heading, log_x=False)


def _median(replay: Replayed, judge: Judge, topics: str) -> float:
    return spread_of(
        [getattr(outcome.figures, judge.what) for outcome in _outcomes(replay, judge.step, topics)]
    ).median


def add_drifts(
    report: Report, shape: Shape, found: Mapping[str, Sequence[Drift]], expert_bytes: int
) -> None:
    """What each strategy moves when the topic changes, and what that brings."""
    where = f"{shape.num_services} services, {shape.num_slots} slots"
    headings = (
        "strategy",
        "imbalance before",
        "after",
        "moves",
        "MB moved, all",
        "imbalance removed, all",
        "kB a point",
    )
    table = Table(f"From topic to topic, steps of {WINDOW} tokens, {where}", headings)
    prices = {strategy: bytes_per_point(drifts, expert_bytes) for strategy, drifts in found.items()}
    for strategy, drifts in found.items():
        price = prices[strategy]
        table.add(
            strategy,
            spread_of([drift.before for drift in drifts]),
            spread_of([drift.after for drift in drifts]),
            spread_of([drift.num_loads for drift in drifts]),
            sum(drift.num_loads for drift in drifts) * expert_bytes / MEGABYTE,
            removed(drifts),
            None if price is None else price / 1e3,
        )
    report.tables.append(table)
    ours, theirs = prices[BALANCED], prices[EPLB]
    if ours is not None and theirs is not None:
        report.notes.append(
            f"bytes moved for a hundredth of imbalance, {BALANCED} ÷ {EPLB}, {where}: "
            f"{ours / theirs:.2f}"
        )
    report.samples[f"drifts, {where}"] = {
        strategy: [asdict(it) for it in drifts] for strategy, drifts in found.items()
    }
    report.panels.append(partial(_draw_drifts, where=where, found=found))


def _draw_drifts(axis: Any, *, where: str, found: Mapping[str, Sequence[Drift]]) -> None:
    for strategy, drifts in found.items():
        places, values = [], []
        for number, drift in enumerate(drifts):
            places += [number, number + 0.8]
            values += [drift.before, drift.after]
        axis.plot(places, values, marker="o", markersize=3, label=strategy)
    drifts = next(iter(found.values()))
    axis.set_xticks(range(len(drifts)), [drift.topic for drift in drifts], fontsize=6, rotation=45)
    label_axes(axis, f"before and after each plan, {where}", "topic", "imbalance", log_x=False)


def add_timings(report: Report, found: Mapping[str, Mapping[str, Sequence[Timing]]]) -> None:
    """How long plans take."""
    title = (
        f"A plan for {LARGE.num_layers} layers of {LARGE.num_experts} experts on "
        f"{LARGE.num_services} services"
    )
    table = Table(f"{title}, CPU time", ("from", "strategy", "s", "least s", "moves"))
    for strategy, by_start in found.items():
        for start, timings in by_start.items():
            seconds = [timing.seconds for timing in timings]
            table.add(start, strategy, spread_of(seconds), min(seconds), timings[0].num_loads)
    report.tables.append(table)
    report.samples["plans, s of CPU time"] = {
        strategy: {
            start: [asdict(timing) for timing in timings] for start, timings in by_start.items()
        }
        for strategy, by_start in found.items()
    }
