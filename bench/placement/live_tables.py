"""What planning brings live, as tables, plots and samples."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from bench.harness.plot import draw_spreads, label_axes
from bench.harness.report import Report
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table
from bench.placement.cluster import Shape
from bench.placement.live import BALANCING, EVENLY_ROUTED, PLANNED, UNPLANNED, Round, device_time
from bench.placement.live_traffic import DECODES_PER_PREFILL, Played
from bench.placement.text import WINDOW
from bench.placement.traffic import DECODE, DECODE_BATCH, MIXED, PREFILL
from services.cli.bench.statistics import percentile

VARIANTS = (UNPLANNED, EVENLY_ROUTED, PLANNED)
MEGABYTE = 1e6


def add_live(report: Report, shape: Shape, rounds: Sequence[Round], expert_bytes: int) -> None:
    """Throughput, what steps notice of moves, and what the automatic mode did for each topic."""
    report.tables += [_throughputs(shape, rounds), _waits(rounds), _automatic(rounds, expert_bytes)]
    report.samples["live"] = [_as_object(it) for it in rounds]
    report.notes += [
        f"live: SIMULATED devices and REPLAYED routing. {shape.num_services} real expert services "
        "in one process, "
        f"whose results are zero and which hold a reply {device_time()}; memory for "
        f"{shape.num_slots} experts a layer, "
        "and one for moves on each. There is no trunk between the layers. Topics in turn, each "
        "from an even placement "
        "of one replica each to what the automatic mode makes of it and back; medians (and "
        "quartiles) over topics",
        f"{PREFILL} is a step of {WINDOW} tokens, {DECODE} one of {DECODE_BATCH}, {MIXED} one of "
        "the first and "
        f"{DECODES_PER_PREFILL} of the second in turn, all of text that was not planned by; "
        "evenly routed are the same "
        "steps with experts dealt out in turn, on the even placement. Devices alone: the ratio of "
        "what the frames that "
        "were sent take by their formula, whatever else took time",
        "steady are the mixed steps in one lane while unplanned or planned; balancing those while "
        "the automatic mode "
        "was on, first looking, then moving experts, then seeing what it brought; undoing those "
        "while experts were "
        "moved back. All topics' steps together",
        "the automatic mode had "
        f"{', '.join(f'{name}={value:g}' for name, value in BALANCING.items())}",
    ]
    report.panels += [partial(_draw_ratios, rounds=rounds), partial(_draw_waits, rounds=rounds)]


def _throughputs(shape: Shape, rounds: Sequence[Round]) -> Table:
    others = (UNPLANNED, EVENLY_ROUTED)
    ratios = [f"{PLANNED} ÷ {other}" for other in others] + [
        f"{other}, devices alone" for other in others
    ]
    table = Table(
        f"Live, a topic at a time: {shape.num_services} SIMULATED services, {shape.num_slots} "
        "slots, REPLAYED routing",
        ("steps", *(f"{variant} tokens/s" for variant in VARIANTS), *ratios),
    )
    for name in rounds[0].lives[PLANNED]:
        rates = {
            variant: [played.tokens_per_second for played in _lives(rounds, variant, name)]
            for variant in VARIANTS
        }
        alone = {
            variant: [1 / played.device_seconds for played in _lives(rounds, variant, name)]
            for variant in VARIANTS
        }
        is_alone = not name.endswith("lanes")  # several share the devices
        table.add(
            name,
            *(spread_of(rates[variant]) for variant in VARIANTS),
            *(ratio_of(rates[PLANNED], rates[other]) for other in others),
            *(ratio_of(alone[PLANNED], alone[other]) if is_alone else None for other in others),
        )
    return table


def _waits(rounds: Sequence[Round]) -> Table:
    table = Table(
        "The time of a step while experts are moved (SIMULATED devices)",
        ("step", "while", "steps", "ms", "p99 ms", "p99 ÷ unplanned's", "p99 ÷ planned's"),
    )
    for kind in (DECODE, PREFILL):
        found = _steps(rounds, kind)
        p99 = {name: percentile(steps, 99) if steps else None for name, steps in found.items()}
        for name, steps in found.items():
            ours = p99[name]
            others = [p99[steady] for steady in _STEADY]
            ratios = [None if ours is None or other is None else ours / other for other in others]
            table.add(kind, name, len(steps), spread_of(steps) if steps else None, ours, *ratios)
    return table


_STEADY = ("unplanned, steady", "planned, steady")


def _steps(rounds: Sequence[Round], kind: str) -> dict[str, list[float]]:
    """Milliseconds of the steps of a kind, all topics' together."""
    found: dict[str, list[float]] = {}
    for it in rounds:
        balancing, moving = (
            it.automatic.played.of(kind, is_moving=is_moving) for is_moving in (False, True)
        )
        for name, samples in (
            (_STEADY[0], it.lives[UNPLANNED][MIXED].of(kind, is_moving=False)),
            (_STEADY[1], it.lives[PLANNED][MIXED].of(kind, is_moving=False)),
            ("balancing", balancing + moving),
            ("balancing, experts on their way", moving),
            ("undoing, experts on their way", it.undoing.of(kind, is_moving=True)),
        ):
            found.setdefault(name, []).extend(samples)
    return found


def _automatic(rounds: Sequence[Round], expert_bytes: int) -> Table:
    table = Table(
        "The automatic mode, from the first step of a topic on",
        (
            "topic",
            "s until planned",
            "operations",
            "loads",
            "MB moved",
            "gain predicted",
            "gain achieved",
        ),
    )
    for it in rounds:
        automatic = it.automatic
        predicted = [outcome.predicted_gain for outcome in automatic.outcomes]
        achieved = [
            outcome.achieved_gain
            for outcome in automatic.outcomes
            if outcome.achieved_gain is not None
        ]
        table.add(
            it.topic,
            automatic.seconds,
            automatic.num_operations,
            automatic.num_loads,
            automatic.num_loads * expert_bytes / MEGABYTE,
            _together(predicted),
            _together(achieved),
        )
    return table


def _together(gains: Sequence[float]) -> float | None:
    """Of plans that were carried out one after the other."""
    left = 1.0
    for gain in gains:
        left *= 1 - gain
    return 1 - left if gains else None


def _lives(rounds: Sequence[Round], variant: str, name: str) -> list[Played]:
    return [it.lives[variant][name] for it in rounds]


def _as_object(it: Round) -> dict[str, Any]:
    lives = {
        variant: {name: _as_samples(played) for name, played in lives.items()}
        for variant, lives in it.lives.items()
    }
    automatic = it.automatic
    return {
        "topic": it.topic,
        "lives": lives,
        "automatic": {
            "seconds_until_planned": automatic.seconds,
            "num_operations": automatic.num_operations,
            "num_loads": automatic.num_loads,
            "outcomes": [asdict(outcome) for outcome in automatic.outcomes],
            **_as_samples(automatic.played),
        },
        "undoing": _as_samples(it.undoing),
    }


def _as_samples(played: Played) -> dict[str, Any]:
    steps = {
        f"{kind}, ms{', moving' if is_moving else ''}": [round(sample, 3) for sample in samples]
        for (kind, is_moving), samples in played.milliseconds.items()
    }
    return {
        "seconds": played.seconds,
        "device_seconds": played.device_seconds,
        "num_tokens": played.num_tokens,
        **steps,
    }


def _draw_ratios(axis: Any, *, rounds: Sequence[Round]) -> None:
    names = list(rounds[0].lives[PLANNED])
    for other, must in ((UNPLANNED, 1.3), (EVENLY_ROUTED, 0.85)):
        spreads: list[Spread] = []
        for name in names:
            rates, others = (
                [played.tokens_per_second for played in _lives(rounds, variant, name)]
                for variant in (PLANNED, other)
            )
            spreads.append(ratio_of(rates, others))
        draw_spreads(axis, range(len(names)), spreads, f"planned ÷ {other}")
        axis.axhline(must, linewidth=0.8, linestyle=":", color="red")
    axis.set_xticks(range(len(names)), names, fontsize=6)
    label_axes(
        axis,
        "live: SIMULATED devices, replayed routing",
        "steps",
        "tokens/s ÷ tokens/s",
        log_x=False,
    )


def _draw_waits(axis: Any, *, rounds: Sequence[Round]) -> None:
    for name, steps in _steps(rounds, DECODE).items():
        if steps:
            ordered = sorted(steps)
            axis.step(
                ordered, [(number + 1) / len(ordered) for number in range(len(ordered))], label=name
            )
    label_axes(
        axis, "decode steps (SIMULATED devices)", "ms", "share of steps done by then", log_x=False
    )
