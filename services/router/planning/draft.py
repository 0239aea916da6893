"""A placement while it is worked out: who would host what, what each layer would take, and the room
that is left.
"""

import math
from collections.abc import Sequence

import numpy as np

from services.router.arrays import Floats
from services.router.load.load import ExpertLoad
from services.router.planning.costs import Costs
from services.router.planning.goals import WantedHosting
from services.router.planning.host import Host
from services.router.planning.targets import Target
from services.router.planning.variation import drawn_steps
from services.router.planning.work import LayerWork, Rates, WorkSnapshot
from services.wire.expert_key import ExpertKey

Replica = tuple[int, int, int]  # position of the layer, expert, position of the service


class Draft:
    """Begins with what is hosted and on its way in; services that are draining are left out.

    `room` [services] is what each may be given more, its transfer slot kept; below 0 where it has
    more already. `spare` has for each service the (layer, expert) replicas that it could let go
    with the coverage kept. Services that take nothing now stay as they are. `works` has each
    layer's work in the mean step; what a placement is judged by are drawn steps that vary about it.
    Changes since the last `mark` can be taken back.
    """

    def __init__(
        self, load: ExpertLoad, hosts: Sequence[Host], costs: Costs, wanted: WantedHosting
    ) -> None:
        self.layers = wanted.layers
        if (len(self.layers), load.num_experts) != (
            load.num_layers,
            len(wanted.experts) // max(1, len(self.layers)),
        ):
            raise ValueError(
                f"a load of {load.tokens.shape} is none of {len(wanted.experts)} experts"
            )
        self._load = load
        order = sorted(range(len(hosts)), key=lambda index: hosts[index].address)
        used = [index for index in order if not hosts[index].is_draining]
        self.hosts = [hosts[index] for index in used]
        self.coverage = wanted.coverage
        self.num_experts = load.num_experts
        self.limits = [
            host.num_slots - (host.num_slots < len(wanted.experts)) for host in self.hosts
        ]
        self.room = list(self.limits)
        self.spare: list[set[tuple[int, int]]] = [set() for _ in self.hosts]
        self._all_addresses = [host.address for host in hosts]
        rates = Rates(
            *(
                nanos[used].tolist()
                for nanos in (costs.fixed_nanos, costs.expert_nanos, costs.pair_nanos)
            )
        )
        drawn = drawn_steps(load)
        judged_by = [_works(rates, step) for step in drawn]
        self.works = _works(rates, load) if len(drawn) > 1 else judged_by[0]
        self._judged_by = [list(works) for works in zip(*judged_by, strict=True)]  # by layer
        self._changes: list[tuple[Replica, bool]] = []
        self._snapshots: dict[int, list[WorkSnapshot]] = {}
        self._is_marked = False
        self._fill()

    def makespans(self) -> Floats:
        """Nanoseconds until the last service is done with each layer, the mean over steps."""
        return np.array([self.makespan(layer) for layer in range(len(self.works))])

    def makespan(self, layer: int) -> float:
        """That of one layer."""
        steps = self._judged_by[layer]
        return math.fsum(work.makespan for work in steps) / len(steps)

    def pairs(self) -> Floats:
        """Pairs that each service computes in the mean step: [layers, services]."""
        return self._shared_out(self._load.tokens)

    def active(self) -> Floats:
        """Experts that each service computes in the mean step, of one that several compute each its
        part.
        """
        return self._shared_out(self._load.active)

    def steps(self, layer: int) -> Sequence[LayerWork]:
        """What the layer's placement is judged by."""
        return self._judged_by[layer]

    def hosted(self) -> set[Replica]:
        """All replicas."""
        return {
            (layer, expert, service)
            for layer, work in enumerate(self.works)
            for service, experts in enumerate(work.experts_of)
            for expert in experts
        }

    def target(self) -> Target:
        """The same by address, with nothing for services that are draining."""
        target: Target = {address: set() for address in self._all_addresses}
        for layer, expert, service in self.hosted():
            target[self.hosts[service].address].add(ExpertKey(self.layers[layer], expert))
        return target

    def add(self, layer: int, expert: int, service: int) -> None:
        """One more replica, used at once."""
        self._note((layer, expert, service), is_added=True)
        for work in self._all_works(layer):
            work.add(expert, service)
            work.level((service,))
        self._count(layer, expert, service, 1)

    def remove(self, layer: int, expert: int, service: int) -> None:
        """One replica less."""
        self._note((layer, expert, service), is_added=False)
        heirs = [other for other in self.works[layer].shares[expert] if other != service]
        for work in self._all_works(layer):
            work.remove(expert, service)
            work.level((*heirs, service))
        self._count(layer, expert, service, -1)

    def replace(self, replicas: set[Replica]) -> None:
        """Have just these, without a way back."""
        for layer, expert, service in self.hosted():
            for work in self._all_works(layer):
                work.remove(expert, service)
        self.room, self.spare = list(self.limits), [set() for _ in self.hosts]
        for layer, expert, service in sorted(replicas):
            for work in self._all_works(layer):
                work.add(expert, service)
            self._count(layer, expert, service, 1)
        for layer in range(len(self.works)):
            for work in self._all_works(layer):
                work.level()

    def mark(self) -> None:
        """From here on changes can be taken back."""
        self._changes.clear()
        self._snapshots.clear()
        self._is_marked = True

    def take_back(self) -> None:
        """Be as at the mark."""
        for layer, snapshots in self._snapshots.items():
            for work, snapshot in zip(self._all_works(layer), snapshots, strict=True):
                work.restore(snapshot)
        for (layer, expert, service), is_added in self._changes:
            self._count(layer, expert, service, -1 if is_added else 1)
        self.mark()

    def _shared_out(self, amounts: Floats) -> Floats:
        """Amounts by layer and expert as each service has its part of them: [layers, services]."""
        parts = np.zeros((len(self.works), len(self.hosts)))
        for layer, work in enumerate(self.works):
            for amount, share in zip(amounts[layer].tolist(), work.shares, strict=True):
                for service, part in share.items():
                    parts[layer, service] += part * amount
        return parts

    def _fill(self) -> None:
        positions = {layer: position for position, layer in enumerate(self.layers)}
        replicas = {
            (positions[layer], expert, service)
            for service, host in enumerate(self.hosts)
            for layer, expert in host.hosted | host.loading
        }
        self.replace(replicas)

    def _all_works(self, layer: int) -> list[LayerWork]:
        mean, steps = self.works[layer], self._judged_by[layer]
        return steps if steps[0] is mean else [mean, *steps]

    def _note(self, replica: Replica, *, is_added: bool) -> None:
        if self._is_marked:
            self._changes.append((replica, is_added))
            if replica[0] not in self._snapshots:
                self._snapshots[replica[0]] = [
                    work.snapshot() for work in self._all_works(replica[0])
                ]

    def _count(self, layer: int, expert: int, service: int, change: int) -> None:
        self.room[service] -= change
        self.spare[service].discard((layer, expert))
        there = self.works[layer].shares[expert]
        for other in there:
            if len(there) > self.coverage:
                self.spare[other].add((layer, expert))
            else:
                self.spare[other].discard((layer, expert))


def _works(rates: Rates, load: ExpertLoad) -> list[LayerWork]:
    both = zip(load.tokens.tolist(), load.active.tolist(), strict=True)
    return [LayerWork(rates, tokens, active) for tokens, active in both]
