"""The picture of `moesaic top`, for terminals of eighty columns and more."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.cli.top.figures import Figures, LayerFigures, MoveFigures, ServiceFigures, Times

HEAT = "▁▂▃▄▅▆▇█"
NOTHING = "·"
MAX_NAMED = 6
GIBI, MEBI = 2**30, 2**20
REPLICATED, UNCOVERED = "bold cyan", "bold red"


def picture(seen: Figures, *, width: int, height: int | None = None) -> RenderableType:
    """Everything, or as many layers of it as fit the `height`."""
    lines: list[RenderableType] = [*_headlines(seen), Text(), _services(seen.services)]
    taken = len(lines) + len(seen.services) + 3 + len(seen.moves) + 2
    room = None if height is None else max(1, height - taken)
    lines += [Text(), *_heat(seen.layers, width, room)]
    if seen.moves:
        lines += [Text(), *map(_move, seen.moves)]
    return Group(*lines)


def _headlines(seen: Figures) -> Iterator[Text]:
    share = seen.communication_share
    yield Text.assemble(
        (f"{seen.tokens_per_second:,.0f} tokens/s", "bold"),
        f"   {seen.running} running, {seen.waiting} waiting",
        f"   communication {'-' if share is None else f'{share:.0%}'}",
    )
    first = _spread(seen.first_token) if seen.gateway_is_known else "not known: give --http"
    yield Text(f"first token {first}   between tokens {_spread(seen.between_tokens)}")


def _spread(times: Times) -> str:
    if times.p50 is None or times.p99 is None:
        return "-"
    return f"p50 {_millis(times.p50)}, p99 {_millis(times.p99)} ms"


def _services(services: Sequence[ServiceFigures]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("service", overflow="fold")
    table.add_column("state")
    for heading in ("experts", "pairs/s", "busy", "queue\nms", "wire\nms", "waited\nfor", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in services:
        style = "" if one.state == "live" else "bold red" if one.state == "lost" else "yellow"
        table.add_row(
            Text(one.name),  # an address may look like markup
            Text(one.state, style),
            f"{one.num_experts:,}",
            f"{one.pairs_per_second:,.0f}",
            f"{one.busy_share:.0%}",
            _millis(one.queue_seconds),
            _millis(one.wire_seconds),
            "-" if one.straggler_share is None else f"{one.straggler_share:.0%}",
            f"{_size(one.memory_bytes)}/{_size(one.memory_limit_bytes)}",
        )
    return table


def _heat(layers: Sequence[LayerFigures], width: int, room: int | None) -> Iterator[Text]:
    """A line for each layer: the experts by their load, those on several services marked."""
    yield Text.assemble(
        "pairs of each expert in a mean step; ", ("on several services", REPLICATED), ", ",
        ("on none", UNCOVERED),
    )  # fmt: skip
    hottest = max((max(one.pairs, default=0.0) for one in layers), default=0.0)
    label = len(f"layer {max((one.layer for one in layers), default=0)}")
    shown = layers if room is None or len(layers) <= room else layers[: room - 1]
    for one in shown:
        line = Text(f"{f'layer {one.layer}':<{label}}  ")
        _append_experts(line, one, hottest, width - label - 2)
        yield line
    if len(shown) < len(layers):
        yield Text(f"… {len(layers) - len(shown)} more layers; a higher terminal shows them")


def _append_experts(line: Text, layer: LayerFigures, hottest: float, room: int) -> None:
    named = _replicated(layer)
    room -= len(named)
    each = -(-len(layer.pairs) // max(1, room))  # experts that share a character, the hottest shown
    wide = 2 if 2 * len(layer.pairs) <= room else 1
    for start in range(0, len(layer.pairs), each):
        pairs = max(layer.pairs[start : start + each])
        replicas = layer.replicas[start : start + each]
        style = UNCOVERED if 0 in replicas else REPLICATED if max(replicas, default=1) > 1 else ""
        line.append(_block(pairs, hottest) * wide, style=style)
    line.append(named)


def _replicated(layer: LayerFigures) -> str:
    """The experts that are on more or fewer services than most, for where there are no colours."""
    counted = Counter(layer.replicas).most_common(1)
    usual = counted[0][0] if counted else 1
    others = [expert for expert, count in enumerate(layer.replicas) if count != usual]
    said = [f"{expert}x{layer.replicas[expert]}" for expert in others[:MAX_NAMED]]
    if len(others) > MAX_NAMED:
        said.append("…")
    if usual != 1:
        said.insert(0, f"each on {usual}")
    return f"  {', '.join(said)}" if said else ""


def _block(pairs: float, hottest: float) -> str:
    if pairs <= 0 or hottest <= 0:
        return NOTHING
    return HEAT[min(len(HEAT) - 1, int(pairs / hottest * len(HEAT)))]


def _move(move: MoveFigures) -> Text:
    total = f", {_size(move.loaded_bytes)} of {_size(move.total_bytes)}" if move.total_bytes else ""
    done = f" {move.num_done} of {move.num_total} experts{total}" if move.num_total else ""
    return Text(f"moving: {move.operation_id} {move.phase}{done}")


def _millis(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    millis = seconds * 1000
    return f"{millis:.2f}" if millis < 10 else f"{millis:,.0f}"


def _size(count: int) -> str:
    return f"{count / GIBI:.1f}G" if count >= GIBI else f"{count / MEBI:.0f}M"
