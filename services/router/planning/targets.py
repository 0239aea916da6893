"""Which service is to host which expert: pure policy over what services host and can hold."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from services.router.arrays import Counts
from services.router.planning.even import (
    Places,
    even_quotas,
    even_shares,
    fill_quotas,
    shared_experts,
)
from services.router.planning.host import Host
from services.router.planning.target_check import absent, too_little_memory
from services.wire.errors import BadState, Overloaded
from services.wire.expert_key import ExpertKey

Target = dict[str, set[ExpertKey]]  # what each service is to host in the end, by address


@dataclass(frozen=True)
class Missing:
    """Replicas to load, by address, in the order in which they matter; what has no replica at all
    comes first.

    `num_uncovered` experts stay below the coverage even so. `shortage` says what lacks where some
    stay without any.
    """

    loads: dict[str, list[ExpertKey]]
    num_uncovered: int
    shortage: Overloaded | None = None


def missing_replicas(experts: Sequence[ExpertKey], hosts: Sequence[Host], coverage: int) -> Missing:
    """What to load so that every expert has a replica, then `coverage` of them; never two on one
    service.

    Evenly within each layer, then over all. A first replica takes a transfer slot where it must, a
    further one never does. What fits is given even where not all does: see `Missing.shortage`.
    """
    spread = _Spread(experts, hosts)
    served = np.asarray(spread.rows([host.hosted for host in spread.hosts]).any(axis=0))
    homeless = np.flatnonzero(spread.num_replicas == 0)
    spread.give_first(homeless[np.argsort(served[homeless], kind="stable")])
    for num_replicas in range(1, coverage):
        lacking = np.flatnonzero(spread.num_replicas == num_replicas)
        # In the order of the first replicas, services would pair up: each would back up one other.
        # Mixed, they do not.
        for expert in np.random.default_rng(0).permutation(lacking).tolist():
            spread.give(expert, may_take_transfer_slot=False)
    # One that is retiring somewhere can be loaded there again once it is gone.
    unplaced = np.flatnonzero((spread.num_replicas == 0) & ~spread.retiring.any(axis=0))
    return Missing(
        {address: keys for address, keys in spread.given.items() if keys},
        int((spread.num_replicas < coverage).sum()),
        too_little_memory(len(unplaced), spread.hosts) if len(unplaced) else None,
    )


def even_target(experts: Sequence[ExpertKey], hosts: Sequence[Host], coverage: int) -> Target:
    """Every layer spread evenly over the services as their memory allows, with few moves from what
    is hosted.

    Each expert is on `coverage` services, or fewer where memory or services do not suffice;
    draining services are left out. Every layer has the same number of experts.

    Raises Overloaded when the experts do not fit once, BadState when a service that is not draining
    takes none at present.
    """
    for host in hosts:
        if not host.takes and not host.is_draining:
            raise BadState(
                f"expert service {host.address} takes no experts at present: it does not answer, "
                "or its checkpoint has changed; wait until it does, start it again, or drain it"
            )
    used = sorted((host for host in hosts if not host.is_draining), key=_by_address)
    rooms = _rooms(used, len(experts))
    total = max(len(experts), min(len(experts) * min(coverage, len(used)), int(rooms.sum())))
    if rooms.sum() < len(experts):
        rooms = np.array([min(host.num_slots, len(experts)) for host in used], dtype=np.int64)
    if rooms.sum() < len(experts):
        raise too_little_memory(len(experts) - int(rooms.sum()), used)
    by_layer = _by_layer(experts)
    rows = _rows(_columns(experts), [host.hosted | host.loading for host in used])
    hosted = np.stack([rows[:, columns].sum(axis=1) for columns in by_layer], axis=1)
    layer_totals = _divided(total, np.zeros(len(by_layer), dtype=np.int64))
    quotas = even_quotas(even_shares(total, rooms, hosted.sum(axis=1)), layer_totals, hosted)
    target: Target = {host.address: set() for host in hosts}
    shared = np.zeros((len(used), len(used)), dtype=np.int64)
    for layer, columns in enumerate(by_layer):
        there = rows[:, columns]
        replicas = _divided(int(layer_totals[layer]), there.sum(axis=0))
        placed = fill_quotas(there, quotas[:, layer], replicas, shared)
        shared += shared_experts(placed)
        for host, row in zip(used, placed, strict=True):
            target[host.address].update(experts[column] for column in columns[row])
    return target


def without(
    address: str, experts: Sequence[ExpertKey], hosts: Sequence[Host], coverage: int
) -> Target:
    """What is hosted now, but for the service at `address`, whose experts go to the others; nothing
    else moves.

    Raises BadState when there is no such service, Overloaded when the others do not hold the
    experts.
    """
    if address not in {host.address for host in hosts}:
        raise absent(address)
    left = [replace(host, is_draining=True) if host.address == address else host for host in hosts]
    missing = missing_replicas(experts, left, coverage)
    if missing.shortage is not None:
        raise missing.shortage
    return {
        host.address: set()
        if host.is_draining
        else {*host.hosted, *host.loading, *missing.loads.get(host.address, ())}
        for host in left
    }


class _Spread:
    """Replicas given out one by one, each to the service that has fewest of the layer, then fewest
    of all.

    Among equals to the one that has least in common with the services that host the expert already,
    so that what one service leaves behind when it is lost falls to all others alike.
    """

    def __init__(self, experts: Sequence[ExpertKey], hosts: Sequence[Host]) -> None:
        # In one order whatever order they came in, so that several routers plan the same.
        self.hosts = sorted(hosts, key=_by_address)
        self.given: dict[str, list[ExpertKey]] = {host.address: [] for host in self.hosts}
        self._experts = experts
        self._columns = _columns(experts)
        coming = self.rows([host.hosted | host.loading for host in self.hosts])
        self.retiring = self.rows([host.retiring for host in self.hosts])
        is_draining = np.array([host.is_draining for host in self.hosts], dtype=bool)
        self.num_replicas = coming[~is_draining].sum(axis=0)
        self._there = coming | self.retiring | self.rows([host.refused for host in self.hosts])
        self._takes = np.array([host.takes for host in self.hosts], dtype=bool) & ~is_draining
        self._free = np.array([host.num_free for host in self.hosts], dtype=np.int64)
        self._reserved = np.array(
            [host.num_slots < len(experts) for host in self.hosts], dtype=np.int64
        )
        by_layer = _by_layer(experts)
        self._layer_of = np.zeros(len(experts), dtype=np.int64)
        for layer, columns in enumerate(by_layer):
            self._layer_of[columns] = layer
        self._in_layer = np.array(
            [coming[:, columns].sum(axis=1) for columns in by_layer]
        )  # [layers, services]
        self._in_all = coming.sum(axis=1)
        self._shared = shared_experts(coming)

    def rows(self, hosted: Sequence[Set[ExpertKey]]) -> Places:
        return _rows(self._columns, hosted)

    def give_first(self, experts: Counts) -> None:
        """Give each of these its first replica, where it fits."""
        takers = np.flatnonzero(self._takes)
        if len(takers) == 1:  # there is nothing to weigh, and requests wait for what was lost
            self._give_all(experts, int(takers[0]))
        else:
            for expert in experts.tolist():
                self.give(expert, may_take_transfer_slot=True)

    def give(self, expert: int, *, may_take_transfer_slot: bool) -> None:
        """Give a replica to whom it suits best; to nobody where it does not fit."""
        can_take = self._takes & ~self._there[:, expert]
        fitting = can_take & (self._free > self._reserved)
        if may_take_transfer_slot and not fitting.any():
            fitting = can_take & (self._free > 0)
        if not fitting.any():
            return
        layer, there, scale = self._layer_of[expert], self._there[:, expert], len(self._experts) + 1
        shared = self._shared[there].sum(axis=0)
        score = (self._in_layer[layer] * scale + self._in_all) * (int(shared.max()) + 1) + shared
        chosen = int(np.where(fitting, score, np.iinfo(np.int64).max).argmin())
        self.given[self.hosts[chosen].address].append(self._experts[expert])
        self.num_replicas[expert] += 1
        self._shared[there, chosen] += 1
        self._shared[chosen, there] += 1
        there[chosen] = True
        self._free[chosen] -= 1
        self._in_layer[layer, chosen] += 1
        self._in_all[chosen] += 1

    def _give_all(self, experts: Counts, chosen: int) -> None:
        """Give replicas to one service, as many as it has room for."""
        given = experts[~self._there[chosen, experts]][: max(0, self._free[chosen])]
        shared = self._there[:, given].sum(axis=1)
        self.given[self.hosts[chosen].address] += [self._experts[one] for one in given.tolist()]
        self.num_replicas[given] += 1
        self._shared[:, chosen] += shared
        self._shared[chosen] += shared
        self._there[chosen, given] = True
        self._free[chosen] -= len(given)
        self._in_layer[:, chosen] += np.bincount(
            self._layer_of[given], minlength=len(self._in_layer)
        )
        self._in_all[chosen] += len(given)


def _rooms(hosts: Sequence[Host], num_experts: int) -> Counts:
    """Experts that each service may host in the end and keep its transfer slot, or host all."""
    slots = np.array([host.num_slots for host in hosts], dtype=np.int64)
    return np.where(slots < num_experts, slots - 1, num_experts)


def _divided(total: int, preferred: Counts) -> Counts:
    """`total` in equal parts; what does not divide goes where `preferred` is greatest."""
    base, extra = divmod(total, len(preferred))
    parts = np.full(len(preferred), base, dtype=np.int64)
    parts[np.argsort(-preferred, kind="stable")[:extra]] += 1
    return parts


def _by_layer(experts: Sequence[ExpertKey]) -> list[Counts]:
    """The positions of each layer's experts, layer by layer."""
    layers = np.array([layer for layer, _ in experts], dtype=np.int64)
    return [np.flatnonzero(layers == layer) for layer in np.unique(layers)]


def _columns(experts: Sequence[ExpertKey]) -> dict[ExpertKey, int]:
    return {key: column for column, key in enumerate(experts)}


def _rows(columns: Mapping[ExpertKey, int], hosted: Sequence[Set[ExpertKey]]) -> Places:
    """Who hosts what: [services, experts]."""
    rows = np.zeros((len(hosted), len(columns)), dtype=bool)
    for row, keys in zip(rows, hosted, strict=True):
        row[[columns[key] for key in keys]] = True
    return rows


def _by_address(host: Host) -> str:
    return host.address
