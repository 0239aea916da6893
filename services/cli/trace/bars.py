"""Stretches of time as characters: told apart by their shape, and by colour where there is any."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from services.traces.model import Process
from services.traces.parts import Part, Stretch

# One for each process, in the order in which they appear.
COLOURS = (
    "cyan",
    "green",
    "dodger_blue1",
    "magenta",
    "yellow",
    "orchid",
    "turquoise2",
    "chartreuse3",
    "plum2",
)
SHAPES = {
    Part.ENCODE: "▒",
    Part.DECODE: "▒",
    Part.WIRE: "░",
    Part.QUEUE: "·",
    Part.COMPUTE: "█",
    None: "━",
}
# Communication has colours of its own, whichever service it belongs to.
STYLES = {
    Part.ENCODE: "dark_orange",
    Part.DECODE: "dark_orange",
    Part.WIRE: "bright_red",
    Part.QUEUE: "bright_black",
}
LEGEND = (
    (Part.WIRE, "wire"),
    (Part.ENCODE, "encode, decode"),
    (Part.QUEUE, "queue"),
    (Part.COMPUTE, "compute"),
)


def bar(
    segments: Sequence[Stretch],
    colours: Mapping[Process, str],
    started: float,
    ended: float,
    width: int,
) -> Text:
    """`width` characters for the time from `started` to `ended`; in each the segment that takes
    most of it.
    """
    scale = width / max(ended - started, 1)
    longest = [0.0] * width
    shown: list[Stretch | None] = [None] * width
    for segment in segments:
        left = min(max((segment.started - started) * scale, 0), width - 0.01)
        right = min(max((segment.ended - started) * scale, left), width)
        for cell in range(int(left), min(int(right) + 1, width)):
            covered = min(right, cell + 1) - max(left, cell)
            if covered > longest[cell] or (shown[cell] is None and cell == int(left)):
                longest[cell], shown[cell] = covered, segment
    text = Text()
    for one in shown:
        if one is None:
            text.append(" ")
        else:
            text.append(
                SHAPES[one.part], STYLES.get(one.part or Part.COMPUTE, colours[one.process])
            )
    return text


def legend() -> Text:
    """What the shapes mean."""
    text = Text()
    for part, name in LEGEND:
        text.append(f"{SHAPES[part]} ", STYLES.get(part, "")).append(f"{name}   ")
    return text
