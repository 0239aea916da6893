"""Where the time of a trace's layers and steps went, as a table and a line."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from services.cli.trace.bars import STYLES
from services.traces.durations import MICROS_PER_MILLI, millis
from services.traces.layers import LayerSummary, step_parts, summarise_layers
from services.traces.model import Trace
from services.traces.parts import Part
from services.traces.processes import names_of_addresses

MIN_SHARE = 0.005


def layer_table(trace: Trace) -> RenderableType | None:
    """Each layer's mean time and what of it was the straggler's; None where no layer is traced."""
    summaries = summarise_layers(trace)
    if not summaries:
        return None
    names = names_of_addresses(trace)
    table = Table(
        title="layers, mean ms: of parallel services the straggler, and its cost in all",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),  # of eighty columns few are left
    )
    for name in ("layer", "all"):
        table.add_column(name, justify="right")
    for part in Part:
        table.add_column(part.value, justify="right", style=STYLES.get(part, ""))
    table.add_column("wire %", justify="right", style=STYLES[Part.WIRE])
    table.add_column("straggler", no_wrap=True)
    for summary in summaries:
        table.add_row(*_cells(summary, names.get(summary.straggler, summary.straggler)))
    return table


def step_line(trace: Trace) -> Text | None:
    """The shares of the parts of all steps in words; None where no step is traced."""
    parts = step_parts(trace)
    whole = sum(parts.values())
    if not whole:
        return None
    text = Text("steps, critical path: ")
    shown = [(name, nanos / whole) for name, nanos in parts.items() if nanos / whole >= MIN_SHARE]
    return text.append(", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in shown))


def _cells(summary: LayerSummary, straggler: str) -> list[str]:
    times = (
        f" {summary.straggler_count} of {summary.count}, {millis(summary.straggler_cost)}"
        if straggler
        else ""
    )
    return [
        str(summary.layer),
        f"{summary.duration / MICROS_PER_MILLI:.2f}",
        *(f"{summary.parts[part] / MICROS_PER_MILLI:.2f}" for part in Part),
        f"{summary.share(Part.WIRE):.0%}",
        f"{straggler}{times}",
    ]
