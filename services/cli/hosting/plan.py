"""A plan, for people: what it is expected to bring by layer and by move, and why no more is moved;
or as an object.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from moesaic.v1 import router_pb2
from services.cli.hosting.document import PlacementDocument

MAX_MOVES = 20  # shown
BAR_STEP, MAX_BAR = 0.1, 20
NANO_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))


def explanation(plan: router_pb2.PlanPlacementResponse) -> Iterator[str | Table]:
    """All that there is to say about a plan, part by part."""
    yield from plan_summary(plan)
    yield (
        "\ntime until the last service is done with a layer, and imbalance over the services, in "
        "a mean step"
    )
    yield _layers_table(plan)
    if plan.moves:
        yield "\nmoves, those that gain most first"
        yield _moves_table(plan)
        if len(plan.moves) > MAX_MOVES:
            yield f"… and {len(plan.moves) - MAX_MOVES} more, which gain less; --json has them all"
    if plan.outcomes:
        yield "\nplans carried out, the latest first: what experts take of a mean step"
        yield _outcomes_table(plan.outcomes)


def plan_summary(plan: router_pb2.PlanPlacementResponse) -> Iterator[str]:
    """What a plan is expected to bring, in a few lines."""
    before, after = sum(plan.before_nanos), sum(plan.after_nanos)
    yield f"experts take {duration(before)} of a mean step, by the last {plan.num_steps:,} steps"
    if not plan.moves and not plan.num_unloads:
        yield f"nothing is moved, since {plan.reason}"
        return
    change = (
        f"{abs(before - after) / before:.1%} {'later' if after > before else 'sooner'}"
        if before
        else "no change"
    )
    imbalance = f"{fmean(plan.before_imbalance):.2f} -> {fmean(plan.after_imbalance):.2f}"
    yield (
        f"planned: {duration(after)} ({change}); imbalance over the services {imbalance}, in the "
        "mean of all layers"
    )
    num_moved = sum(bool(move.source) for move in plan.moves)
    changes = (
        (num_moved, "moved"),
        (len(plan.moves) - num_moved, "added"),
        (plan.num_unloads, "given up"),
    )
    replicas = ", ".join(f"{count:,} {what}" for count, what in changes if count)
    yield f"replicas: {replicas}; no more, since {plan.reason}"


def plan_as_object(plan: router_pb2.PlanPlacementResponse) -> dict[str, Any]:
    """What `--json` prints; the target as in a placement file."""
    names = ("before_nanos", "after_nanos", "before_imbalance", "after_imbalance")
    return {
        "num_steps": plan.num_steps,
        "before_nanos": sum(plan.before_nanos),
        "after_nanos": sum(plan.after_nanos),
        "reason": plan.reason,
        "num_unloads": plan.num_unloads,
        "moves": [
            {
                "layer": move.layer,
                "expert": move.expert,
                "source": move.source or None,
                "target": move.target,
                "gain_nanos": move.gain_nanos,
                "why": move.why,
            }
            for move in _by_gain(plan)
        ],
        "layers": [
            {"layer": layer} | dict(zip(names, figures, strict=True))
            for layer, *figures in _layers(plan)
        ],
        "outcomes": [
            {
                "operation_id": outcome.operation_id,
                "num_moves": outcome.num_moves,
                "before_nanos": outcome.before_nanos,
                "predicted_nanos": outcome.predicted_nanos,
                "achieved_nanos": outcome.achieved_nanos or None,
            }
            for outcome in plan.outcomes
        ],
        "target": PlacementDocument.planned(plan.target).model_dump(),
    }


def duration(nanos: float) -> str:
    """Such as `1.23 ms`, with three digits."""
    size, unit = next(
        ((size, unit) for size, unit in NANO_UNITS if abs(nanos) >= size), NANO_UNITS[-1]
    )
    value = nanos / size
    return f"{value:,.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f} {unit}"


def _layers_table(plan: router_pb2.PlanPlacementResponse) -> Table:
    """A row for each layer: its time and its imbalance as it is and as planned."""
    table = _table()
    table.add_column("layer")
    table.add_column("time", justify="right")
    table.add_column("planned", justify="right")
    table.add_column("imbalance")
    table.add_column("planned")
    for layer, before, after, *imbalances in _layers(plan):
        bars = [f"{imbalance:5.2f} {_bar(imbalance)}" for imbalance in imbalances]
        table.add_row(str(layer), duration(before), duration(after), *bars)
    return table


def _moves_table(plan: router_pb2.PlanPlacementResponse) -> Table:
    table = _table()
    for heading in ("layer", "expert"):
        table.add_column(heading, justify="right")
    table.add_column("from", overflow="fold")
    table.add_column("to", overflow="fold")
    table.add_column("sooner by", justify="right")
    table.add_column("why", overflow="fold")
    for move in _by_gain(plan)[:MAX_MOVES]:
        source = move.source or "(added)"
        table.add_row(
            str(move.layer),
            str(move.expert),
            source,
            move.target,
            duration(move.gain_nanos),
            move.why,
        )
    return table


def _outcomes_table(outcomes: Sequence[router_pb2.PlanOutcome]) -> Table:
    """What became of earlier plans; a dash where not enough steps have come since."""
    table = _table()
    table.add_column("operation", overflow="fold")
    for heading in ("moves", "before", "predicted", "achieved"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        achieved = duration(outcome.achieved_nanos) if outcome.achieved_nanos else "-"
        figures = (duration(outcome.before_nanos), duration(outcome.predicted_nanos), achieved)
        table.add_row(outcome.operation_id, str(outcome.num_moves), *figures)
    return table


def _layers(
    plan: router_pb2.PlanPlacementResponse,
) -> Iterator[tuple[int, float, float, float, float]]:
    """Each layer's number, times and imbalances; whatever is planned, every layer is hosted by
    somebody.
    """
    layers = sorted({hosted.layer for service in plan.target.services for hosted in service.layers})
    return zip(
        layers,
        plan.before_nanos,
        plan.after_nanos,
        plan.before_imbalance,
        plan.after_imbalance,
        strict=True,
    )


def _by_gain(plan: router_pb2.PlanPlacementResponse) -> list[router_pb2.PlannedMove]:
    return sorted(plan.moves, key=lambda move: -move.gain_nanos)


def _table() -> Table:
    return Table(box=None, pad_edge=False)


def _bar(imbalance: float) -> str:
    return "■" * min(MAX_BAR, round(imbalance / BAR_STEP))
