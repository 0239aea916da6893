"""Services that host a model in figures alone, and what plans would have them host."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from services.router.load.load import ExpertLoad
from services.router.planning.balanced import Balanced
from services.router.planning.costs import Costs
from services.router.planning.eplb import Eplb
from services.router.planning.goals import WantedHosting
from services.router.planning.host import Host
from services.router.planning.plan import Plan, plan
from services.router.planning.strategy import Strategy
from services.router.planning.targets import Target, even_target
from services.wire.expert_key import ExpertKey

EVEN, EPLB, BALANCED = "even", "eplb", "balanced"
STRATEGIES: dict[str, Callable[[], Strategy]] = {EPLB: Eplb, BALANCED: Balanced}

Hosting = npt.NDArray[np.bool_]  # [layers, services, experts]


@dataclass(frozen=True)
class Prices:
    """What one layer costs every service: a fixed time, one for each active expert, and one for
    each pair.
    """

    name: str
    fixed_nanos: float
    expert_nanos: float
    pair_nanos: float

    def __str__(self) -> str:
        fixed, expert, pair = (
            nanos / 1e3 for nanos in (self.fixed_nanos, self.expert_nanos, self.pair_nanos)
        )
        return f"{self.name}: {fixed:g} µs, and {expert:g} µs an active expert, {pair:g} µs a pair"


# The shipped model's experts stay in the cache, and a pair costs as much as an expert: the
# least-squares fit of its compiled kernels in bfloat16 on one core. Of larger experts the weights
# must be read: a service that is simulated.
CACHED = Prices("cached", 4200, 1200, 950)
READ = Prices("read", 2e6, 1e6, 5e4)


@dataclass(frozen=True)
class Shape:
    """A model's experts and the slots for them: `num_slots` in each layer over all services,
    transfer slots apart.
    """

    num_layers: int
    num_experts: int
    num_services: int
    num_slots: int

    @property
    def service_slots(self) -> int:
        """Experts of any layer that one service has memory for; the last slot is for moves."""
        return self.num_layers * self.num_slots // self.num_services + 1


@dataclass(frozen=True)
class Planned:
    """What services host by a plan, and the experts that are loaded for it."""

    cluster: "Cluster"
    num_loads: int


@dataclass(frozen=True)
class Cluster:
    """Services of a shape, and what each hosts: nothing is in a moment of change."""

    shape: Shape
    prices: Prices
    hosts: Sequence[Host]
    wanted: WantedHosting
    costs: Costs = field(repr=False)

    @classmethod
    def even(cls, shape: Shape, prices: Prices) -> "Cluster":
        """Experts spread as services do that know no load, with one replica each."""
        layers, experts_each = range(shape.num_layers), range(shape.num_experts)
        experts = [ExpertKey(layer, expert) for layer in layers for expert in experts_each]
        empty = [
            Host(f"service-{number:02}", shape.service_slots)
            for number in range(shape.num_services)
        ]
        nanos = (prices.fixed_nanos, prices.expert_nanos, prices.pair_nanos)
        wanted = WantedHosting(experts, coverage=1)
        costs = Costs.equal(shape.num_services, *nanos)
        return cls(shape, prices, empty, wanted, costs)._hosting(
            even_target(experts, empty, wanted.coverage)
        )

    @property
    def hosting(self) -> Hosting:
        """Who hosts what."""
        found = np.zeros(
            (self.shape.num_layers, self.shape.num_services, self.shape.num_experts), dtype=bool
        )
        for service, host in enumerate(self.hosts):
            for layer, expert in host.hosted:
                found[layer, service, expert] = True
        return found

    @property
    def num_replicas(self) -> int:
        """Experts in memory, each as often as it is there."""
        return sum(len(host.hosted) for host in self.hosts)

    def planned(self, strategy: str, load: ExpertLoad) -> Planned:
        """What a strategy would make of it; EVEN leaves it as it is."""
        if strategy == EVEN:
            return Planned(self, 0)
        made = self.plan(strategy, load)
        return Planned(self._hosting(made.target), len(made.moves))

    def plan(self, strategy: str, load: ExpertLoad) -> Plan:
        """The plan by itself, of any strategy but EVEN."""
        return plan(load, self.hosts, self.costs, self.wanted, STRATEGIES[strategy]())

    def _hosting(self, target: Target) -> "Cluster":
        hosts = [replace(host, hosted=frozenset(target[host.address])) for host in self.hosts]
        return replace(self, hosts=hosts)
