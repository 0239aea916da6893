"""Which events befall the cluster of a chaos run: a short fixed list, and long ones drawn from a
seed.
"""

import random
from collections.abc import Callable, Sequence

from bench.hosting import events
from bench.hosting.cluster import ROUTER
from bench.hosting.events import Event
from tests.chaos.lies import LIES
from tests.chaos.lying_event import lied

OTHER_ROUTER = "router-1"
SERVICES = ("expert-0", "expert-1", "expert-2", "expert-3")
NUM_PATTERNS = 1000

SHORT: Sequence[Event] = (
    events.undisturbed(1.0),
    events.killed("expert-1"),
    events.stopped("expert-2", 1.0),
    events.cut("expert-3", 0.5),
    events.truncated("expert-0", 700, 0.5),
    events.delayed("expert-2", 0.02, 0.5),
    events.corrupted("expert-3", 5, 1, 1.0),
    events.started("expert-1"),
    events.moved(0),
    events.left("expert-3"),
    events.started("expert-3"),
    events.spread(),
    events.stopped(OTHER_ROUTER, 1.0),
    events.killed(OTHER_ROUTER),
    events.killed_in_move("expert-0", "expert-1", "expert-0", "loading"),
)


class Drawing:
    """Draws scenes, one after the other; each begins and ends with as many services as there were
    at first.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._names = list(SERVICES)
        self._num_ever = len(SERVICES)

    def events(self, count: int) -> list[Event]:
        """At least so many events, then the death of everybody who takes part in a move, in each of
        its phases.
        """
        scenes: Sequence[Callable[[], list[Event]]] = (
            self._death,
            self._death,
            self._hang,
            self._router_death,
            self._damage,
            self._damage,
            self._lie,
            self._moves,
            self._moves,
            self._change_of_guard,
            self._death_in_a_move,
            self._death_in_a_move,
        )
        drawn = [events.undisturbed(2.0)]
        while len(drawn) < count:
            drawn += self._random.choice(scenes)()
        for phase in events.PHASES:
            for role in range(3):
                source, destination = self._random.sample(self._names, 2)
                drawn += self._death_of(
                    (source, destination, ROUTER)[role], source, destination, phase
                )
        return drawn

    def _name(self) -> str:
        return self._random.choice(self._names)

    def _death(self) -> list[Event]:
        name = self._name()
        return [events.killed(name), events.started(name)]

    def _hang(self) -> list[Event]:
        return [events.stopped(self._name(), self._seconds(0.2, 5.0))]

    def _router_death(self) -> list[Event]:
        """The other one hangs and dies; both are lost for a moment, at times."""
        killed = [
            events.stopped(OTHER_ROUTER, self._seconds(0.2, 5.0)),
            events.killed(OTHER_ROUTER),
        ]
        if self._random.random() < 0.5:
            killed.append(events.restarted(ROUTER))
        return [*killed, events.router_started(OTHER_ROUTER)]

    def _damage(self) -> list[Event]:
        name, seconds, draw = self._name(), self._seconds(0.2, 2.0), self._random
        return [
            draw.choice(
                (
                    events.cut(name, seconds),
                    events.held(name, seconds),
                    events.delayed(name, self._seconds(0.005, 0.3), seconds),
                    events.truncated(name, draw.randrange(1, 20_000), seconds),
                    events.corrupted(name, draw.randrange(1, 50), draw.randrange(1 << 30), seconds),
                )
            )
        ]

    def _lie(self) -> list[Event]:
        name, self._num_ever = f"expert-{self._num_ever}", self._num_ever + 1
        return [lied(name, self._random.choice(list(LIES)), self._seconds(0.5, 3.0))]

    def _moves(self) -> list[Event]:
        patterns = self._random.sample(range(NUM_PATTERNS), 2)
        return [*map(events.moved, patterns), events.spread()]

    def _change_of_guard(self) -> list[Event]:
        newcomers = [f"expert-{self._num_ever + number}" for number in range(2)]
        leavers = self._random.sample(self._names, 2)
        self._num_ever += 2
        self._names = [name for name in self._names if name not in leavers] + newcomers
        return [events.joined(*newcomers), events.left(leavers[0]), events.drained(leavers[1])]

    def _death_in_a_move(self) -> list[Event]:
        source, destination = self._random.sample(self._names, 2)
        victim = self._random.choice((source, destination, ROUTER))
        return self._death_of(
            victim, source, destination, self._random.choice(tuple(events.PHASES))
        )

    def _death_of(self, victim: str, source: str, destination: str, phase: str) -> list[Event]:
        killed = events.killed_in_move(source, destination, victim, phase)
        return [killed] if victim == ROUTER else [killed, events.started(victim)]

    def _seconds(self, least: float, most: float) -> float:
        return round(self._random.uniform(least, most), 3)
