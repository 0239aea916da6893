"""`python -m tests.import_graph services/router bench`: rooms of a folder, and their imports.

A room is a file or a folder of it. A room's floor is one above the highest room that it imports.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Graph:
    """For each room the rooms that it imports, itself left out."""

    arrows: Mapping[str, frozenset[str]]

    @cached_property
    def circles(self) -> list[tuple[str, str]]:
        """Pairs of rooms that import each other, by whatever way."""
        reached = {room: self._reached(room) for room in self.arrows}
        pairs = combinations(reached, 2)
        return [
            (one, other) for one, other in pairs if other in reached[one] and one in reached[other]
        ]

    @cached_property
    def floors(self) -> Mapping[str, int]:
        """Each room's floor, from 1; there must be no circle."""
        floors: dict[str, int] = {}

        def floor(room: str) -> int:
            if room not in floors:
                floors[room] = 1 + max(map(floor, self.arrows[room]), default=0)
            return floors[room]

        for room in self.arrows:
            floor(room)
        return floors

    def _reached(self, room: str) -> set[str]:
        reached: set[str] = set()
        waiting = [room]
        while waiting:
            new = self.arrows[waiting.pop()] - reached
            reached |= new
            waiting += new
        return reached


def graph_of(folder: Path) -> Graph:
    """The graph of a folder's rooms; its own `__init__.py` and `__main__.py` are none."""
    package = ".".join(folder.relative_to(ROOT).parts)
    arrows: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        if path.parent != folder or not path.stem.startswith("__"):
            room = path.relative_to(folder).with_suffix("").parts[0]
            arrows.setdefault(room, set()).update(_imports(path, package))
    rooms = arrows.keys()
    return Graph({room: frozenset((arrows[room] & rooms) - {room}) for room in sorted(rooms)})


def _imports(path: Path, package: str) -> Iterator[str]:
    """The rooms of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            yield (node.module or "").removeprefix(f"{package}.").partition(".")[0]


def main(folders: Sequence[str]) -> int:
    """Print the graph of each folder; the exit code says whether there is a circle."""
    has_circle = False
    for name in folders:
        graph = graph_of(ROOT / name)
        size = f"{len(graph.arrows)} rooms, {sum(map(len, graph.arrows.values()))} arrows"
        if graph.circles:
            has_circle = True
            print(f"{name}: {size}, circles: {graph.circles}")
            continue
        print(f"{name}: {size}, {max(graph.floors.values())} floors, no circle")
        for room in sorted(graph.arrows, key=lambda room: (-graph.floors[room], room)):
            print(f"  {graph.floors[room]:>2}  {room:<18} {' '.join(sorted(graph.arrows[room]))}")
    return int(has_circle)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
