"""A plan: who is to host what, what that is expected to bring, and why each move is made or none
is.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass

from services.router.arrays import Floats
from services.router.load.load import ExpertLoad
from services.router.planning.costs import Costs
from services.router.planning.coverage import cover
from services.router.planning.draft import Draft, Replica
from services.router.planning.goals import WantedHosting
from services.router.planning.host import Host
from services.router.planning.strategy import ReplicaReason, Strategy
from services.router.planning.targets import Target


@dataclass(frozen=True)
class Move:
    """An expert loaded by the service at `target`; it leaves `source`, or stays wherever it is
    where that is None.

    `gain_nanos` is how much sooner a mean step is expected to be done for it. What is moved
    together has its gain in equal parts.
    """

    layer: int
    expert: int
    source: str | None
    target: str
    gain_nanos: float
    why: str


@dataclass(frozen=True)
class Unload:
    """A replica given up that is not moved anywhere: it costs nothing and makes room."""

    layer: int
    expert: int
    address: str


@dataclass(frozen=True, eq=False)
class Plan:
    """A target and its explanation.

    `before` and `after` [layers] are the nanoseconds until the last service is done with a layer in
    a mean step, `before_pairs` and `after_pairs` [layers, services] the pairs that each service
    computes in one, and `before_active` the experts; services that are draining are left out.
    `reason` says why no more is moved; it is never empty.
    """

    target: Target
    before: Floats
    after: Floats
    before_pairs: Floats
    before_active: Floats
    after_pairs: Floats
    moves: Sequence[Move]
    unloads: Sequence[Unload]
    reason: str

    @property
    def gain_nanos(self) -> float:
        """How much sooner a mean step is expected to be done."""
        return float(self.before.sum() - self.after.sum())


def plan(
    load: ExpertLoad, hosts: Sequence[Host], costs: Costs, wanted: WantedHosting, strategy: Strategy
) -> Plan:
    """What `strategy` would have hosted where: `Balanced()`, `Eplb()` or `Static(target)`.

    `load` is of the wanted experts' layers in ascending order, `costs` of the hosts in their order.
    What is hosted now, and the memory, are the hosts'. Raises Overloaded when the experts do not
    fit once.
    """
    draft = Draft(load, hosts, costs, wanted)
    hosted = draft.hosted()
    lacking = {replica: ReplicaReason(0.0, why) for replica, why in cover(draft).items()}
    before, before_pairs, before_active = draft.makespans(), draft.pairs(), draft.active()
    proposal = strategy.propose(draft)
    after = draft.makespans()
    planned = draft.hosted()
    loads, unloads = planned - hosted, hosted - planned
    even_parts = _even_parts(loads, before - after)
    reasons = even_parts | lacking | dict(proposal.reasons)
    sources = _sources(draft, hosts, unloads)
    moves = [_move(draft, replica, reasons[replica], sources) for replica in sorted(loads)]
    given_up = tuple(
        Unload(draft.layers[layer], expert, address)
        for (layer, expert), addresses in sorted(sources.items())
        for address in addresses
    )
    return Plan(
        target=draft.target(),
        before=before,
        after=after,
        before_pairs=before_pairs,
        after_pairs=draft.pairs(),
        before_active=before_active,
        moves=tuple(moves),
        unloads=given_up,
        reason=proposal.summary,
    )


def step_nanos(
    load: ExpertLoad, hosts: Sequence[Host], costs: Costs, wanted: WantedHosting
) -> float:
    """The time that experts take a mean step with what is hosted; arguments as for `plan`."""
    return float(Draft(load, hosts, costs, wanted).makespans().sum())


def _even_parts(loads: Set[Replica], gains: Floats) -> dict[Replica, ReplicaReason]:
    """Each layer's gain in equal parts, where the strategy says no more."""
    num_loads = Counter(layer for layer, _, _ in loads)
    return {
        replica: ReplicaReason(
            float(gains[replica[0]]) / num_loads[replica[0]], "its layer is placed anew"
        )
        for replica in loads
    }


def _move(
    draft: Draft,
    replica: Replica,
    reason: ReplicaReason,
    sources: dict[tuple[int, int], list[str]],
) -> Move:
    """A load, from a service that its expert leaves; that one is taken out of `sources`."""
    layer, expert, service = replica
    leaving = sources.get((layer, expert))
    source = leaving.pop() if leaving else None
    address = draft.hosts[service].address
    return Move(draft.layers[layer], expert, source, address, reason.gain_nanos, reason.why)


def _sources(
    draft: Draft, hosts: Sequence[Host], unloads: Set[Replica]
) -> dict[tuple[int, int], list[str]]:
    """Where each (position of the layer, expert) goes from: what is unloaded, draining services
    included.
    """
    sources: dict[tuple[int, int], list[str]] = defaultdict(list)
    for layer, expert, service in sorted(unloads, reverse=True):
        sources[layer, expert].append(draft.hosts[service].address)
    positions = {layer: position for position, layer in enumerate(draft.layers)}
    for host in hosts:
        if host.is_draining:
            for layer, expert in sorted(host.hosted | host.loading):
                sources[positions[layer], expert].append(host.address)
    return sources
