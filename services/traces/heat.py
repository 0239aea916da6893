"""What each service cost each layer of a trace, over all steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.traces.layers import straggler_cost, straggler_of
from services.traces.model import Span, Trace
from services.traces.parts import CALL, LAYER


@dataclass
class HeatCell:
    """One service in one layer; times are microseconds. `cost` is what it cost the layer as its
    straggler, `count` times; `worst` is the span where that was most.
    """

    layer: int
    address: str
    num_calls: int = 0
    duration: float = 0.0
    count: int = 0
    cost: float = 0.0
    worst: Span | None = None
    worst_cost: float = -1.0


def heat_of(trace: Trace) -> Sequence[HeatCell]:
    """The cells of all layers and services that were asked, by layer and address."""
    cells: dict[tuple[int, str], HeatCell] = {}

    def cell(layer: int, address: str) -> HeatCell:
        return cells.setdefault((layer, address), HeatCell(layer, address))

    for span in trace.named(LAYER):
        layer = span.number("moesaic.layer") or 0
        for call in trace.children(span):
            if call.name == CALL:
                asked = cell(layer, call.text("server.address"))
                asked.num_calls += 1
                asked.duration += call.duration
        straggler = straggler_of(trace, span)
        if straggler is not None:
            cost = straggler_cost(span, straggler)
            blamed = cell(layer, straggler.text("server.address"))
            blamed.count += 1
            blamed.cost += cost
            if cost > blamed.worst_cost:
                blamed.worst, blamed.worst_cost = span, cost
    return [cells[key] for key in sorted(cells)]


def costliest(cells: Sequence[HeatCell]) -> tuple[str, int, float] | None:
    """The service that cost the layers most in all: its address, how often and how much."""
    totals: dict[str, list[float]] = {}
    for cell in cells:
        total = totals.setdefault(cell.address, [0, 0.0])
        total[0] += cell.count
        total[1] += cell.cost
    if not totals:
        return None
    address = max(totals, key=lambda one: totals[one][1])
    count, cost = totals[address]
    return address, int(count), cost
