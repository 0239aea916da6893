"""A balancer in a world of its own: services that host at once what they are told, drawn routing,
and a clock.
"""

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from services.router.balance.balancer import Balancer
from services.router.hosting.operations import Operation, OperationProgress, Phase
from services.router.load.watch import RoutingWatch
from services.router.planning.goals import WantedHosting
from services.router.planning.host import Host
from services.router.planning.moves import next_changes
from services.router.planning.target_check import check_target
from services.router.planning.targets import even_target
from services.router.settings import RouterSettings
from services.wire.expert_key import ExpertKey

NUM_LAYERS, NUM_EXPERTS, NUM_PAIRS = 2, 16, 32
EXPERTS = [ExpertKey(layer, expert) for layer in range(NUM_LAYERS) for expert in range(NUM_EXPERTS)]
STEPS, LOOK_SECONDS = 64, 10.0


class Inline:
    """A planner in this process."""

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    async def close(self) -> None:
        pass


@dataclass
class Peer:
    """A service that answers."""

    address: str
    is_live: bool = True
    is_suspect: bool = False
    costs: tuple[float, float, float] = (2e6, 1e6, 1e5)  # nanoseconds of a frame, an expert, a pair

    @property
    def pace(self) -> "Peer":
        return self

    def fit(self) -> tuple[float, float, float]:
        return self.costs


class World:
    """Stands for the fleet: all that a balancer asks of it. Operations are done at once, change by
    change.
    """

    def __init__(self, num_services: int, num_slots: int, *, coverage: int = 1) -> None:
        self.wanted = WantedHosting(EXPERTS, coverage)
        hosts = [Host(f"s{index}", num_slots) for index in range(num_services)]
        target = even_target(EXPERTS, hosts, coverage)
        self.hosting = [replace(host, hosted=frozenset(target[host.address])) for host in hosts]
        self.peers = [Peer(host.address) for host in hosts]
        self.is_complete = self.is_planner = True
        self.current: Operation | None = None
        self.troubles: dict[str, str] = {}
        self.num_loads: list[int] = []  # of each operation
        self.survey = self.operations = self.transfers = self.laid = self

    def hosts(self) -> list[Host]:
        return list(self.hosting)

    def is_idle(self) -> bool:
        return True

    def trouble(self, peer: Peer) -> str | None:
        return self.troubles.get(peer.address)

    def num_below(self, coverage: int) -> int:
        replicas = Counter(key for host in self.hosting for key in host.hosted)
        return sum(replicas[key] < coverage for key in EXPERTS)

    def begin(self, name: str, goal: Any, *, force: bool, is_own: bool) -> Operation:
        operation = Operation(name, goal, force=force, is_own=is_own)
        target = goal.target(self.hosting, self.wanted)
        check_target(target, EXPERTS, self.hosting, self.wanted.coverage)
        self.num_loads.append(0)
        while (changes := next_changes(self.hosting, target)).num_left:
            for address, keys in changes.loads.items():
                self.num_loads[-1] += len(keys)
                self._change(address, lambda hosted, keys=keys: hosted | frozenset(keys))  # type: ignore[misc]
            for address, keys in changes.unloads.items():
                self._change(address, lambda hosted, keys=keys: hosted - frozenset(keys))  # type: ignore[misc]
        operation.report(OperationProgress(Phase.DONE, 0, 0))
        return operation

    def _change(self, address: str, change: Callable[[Set[Any]], frozenset[Any]]) -> None:
        self.hosting = [
            replace(host, hosted=change(host.hosted)) if host.address == address else host
            for host in self.hosting
        ]
        self.check()

    def check(self) -> None:
        """Every placement on the way is within memory, and no expert below the coverage, ever."""
        assert all(host.num_free >= 0 for host in self.hosting)
        assert self.num_below(self.wanted.coverage) == 0


class Simulation:
    """A world with a balancer that looks every ten seconds, between which a window of
    steps comes.
    """

    def __init__(self, world: World, seed: int, *, gain: float = 0.05) -> None:
        self.world = world
        self.time = 0.0
        self.watch = RoutingWatch(range(NUM_LAYERS), NUM_EXPERTS, 2, STEPS)
        settings = RouterSettings(
            rebalance_seconds=LOOK_SECONDS, rebalance_steps=STEPS, rebalance_gain=gain
        )
        self.balancer = Balancer(world, self.watch, Inline(), settings, now=lambda: self.time)  # type: ignore[arg-type]
        self._rng = np.random.default_rng(seed)
        self.topics = [
            [self._rng.dirichlet(np.full(NUM_EXPERTS, 0.3)) for _ in range(NUM_LAYERS)]
            for _ in range(2)
        ]  # how likely a token of the topic chooses each expert

    async def look(self, topic: int, *, num_steps: int = STEPS) -> None:
        """Steps of one topic, then a look."""
        route(self.watch, self.topics[topic], num_steps, self._rng)
        self.time += LOOK_SECONDS
        await self.balancer.look()
        self.world.check()


def route(
    watch: RoutingWatch,
    chances: Sequence[np.ndarray[Any, Any]],
    num_steps: int,
    rng: np.random.Generator,
) -> None:
    """Decode steps whose pairs choose experts with such chances, by layer."""
    for counts in zip(
        *(rng.multinomial(NUM_PAIRS, chance, num_steps) for chance in chances), strict=True
    ):
        for layer, count in enumerate(counts):
            watch.note(0, layer, np.repeat(np.arange(len(count)), count), is_decode=True)
