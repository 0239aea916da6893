"""The way from what is hosted to what is to be hosted: make-before-break, within memory at every
moment.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain

from services.router.planning.host import Host
from services.router.planning.target_check import check_served, check_services
from services.wire.errors import BadState, Overloaded
from services.wire.expert_key import ExpertKey

# Experts of one load become ready together, and the next load is planned with what is known then.
MAX_BATCH = 64
BATCH_BYTES = 192 << 20
Moves = dict[str, list[ExpertKey]]  # by address


@dataclass(frozen=True)
class Changes:
    """What can be done now: experts to load and to unload, by address; addresses with nothing to do
    are left out.

    `num_left` counts the loads and unloads from here to the target, what is under way included; 0
    when it is reached. `num_to_load` of them are loads. Where something is left and nothing to do
    now, what is under way has to end first.
    """

    loads: Moves
    unloads: Moves
    num_left: int
    num_to_load: int


def batch_size(expert_bytes: int, batch_bytes: int = BATCH_BYTES) -> int:
    """Experts of one load, of such a size."""
    return max(1, min(MAX_BATCH, batch_bytes // max(1, expert_bytes)))


def next_changes(
    hosts: Sequence[Host], target: Mapping[str, Set[ExpertKey]], *, max_batch: int = MAX_BATCH
) -> Changes:
    """The next changes on the way to `target`, to be asked for again whenever something has ended,
    well or not.

    What the caller has under way itself must stand in the hosts' `loading` and `retiring`. An
    address without an entry in `target` is to host nothing. At every moment each service stays
    within its slots, and every expert with a ready replica keeps one: an expert leaves a service
    when all its replicas of the target are ready, or, where full services would wait for each other
    for ever, when one other replica is.

    Raises what `check_services` and `check_served` do, BadState when a service that lacks experts
    takes none at present, and Overloaded when no slot is free.
    """
    check_services(target, hosts)
    way = _Way(hosts, target)
    loads, unloads = way.loads(max_batch), way.unloads()
    is_waiting = any(host.loading or host.retiring for host in hosts)
    if way.num_left and not (loads or unloads or is_waiting):
        loads, unloads = way.out_of_deadlock()
    return Changes(loads, unloads, way.num_left, way.num_to_load)


class _Way:
    """What is hosted beside what is to be: what each service lacks, and what it has too much."""

    def __init__(self, hosts: Sequence[Host], target: Mapping[str, Set[ExpertKey]]) -> None:
        self._hosts = sorted(hosts, key=lambda host: host.address)
        wanted = {host.address: target.get(host.address, frozenset()) for host in hosts}
        unready = {host.address: wanted[host.address] - host.hosted for host in hosts}
        self._lacking = {
            host.address: unready[host.address] - host.loading - host.retiring - host.refused
            for host in hosts
        }
        self._surplus = {
            host.address: (host.hosted | host.refused) - wanted[host.address] for host in hosts
        }
        self._unready = set[ExpertKey]().union(*unready.values())
        check_served(chain.from_iterable(self._surplus.values()), wanted)
        self.num_to_load = sum(map(len, unready.values()))
        self.num_left = self.num_to_load + sum(
            len(self._surplus[host.address])
            + len((host.loading | host.retiring) - wanted[host.address])
            for host in hosts
        )

    def loads(self, max_batch: int) -> Moves:
        """What fits into free slots, first what is ready nowhere."""
        ready = set[ExpertKey]().union(*(host.hosted for host in self._hosts))
        return {
            host.address: heapq.nsmallest(
                min(host.num_free, max_batch),
                self._lacking[host.address],
                key=lambda expert: (expert in ready, expert),
            )
            for host in self._hosts
            if host.takes and host.num_free > 0 and self._lacking[host.address]
        }

    def unloads(self) -> Moves:
        """What is ready wherever the target has it."""
        leaving = {
            address: sorted(surplus - self._unready) for address, surplus in self._surplus.items()
        }
        return {address: experts for address, experts in leaving.items() if experts}

    def out_of_deadlock(self) -> tuple[Moves, Moves]:
        """What lets a full service go on that cannot let go of an expert, because another full one
        is to have it.

        One that is ready elsewhere leaves early; else one is put for a while where there is a free
        slot. As long as the target leaves one slot free anywhere, there is a way, and each way ends
        in one more expert where it is wanted.
        """
        full = [
            host
            for host in self._hosts
            if host.takes and host.num_free <= 0 and self._lacking[host.address]
        ]
        if not full:
            waiting = ", ".join(host.address for host in self._hosts if self._lacking[host.address])
            raise BadState(f"expert service {waiting} takes no experts at present")
        if unloads := self._early_unloads(full):
            return {}, unloads
        taking = [host for host in self._hosts if host.takes and not host.is_draining]
        refuge = max(taking, key=lambda host: host.num_free)
        if refuge.num_free > 0:
            return {refuge.address: [min(self._surplus[full[0].address])]}, {}
        raise Overloaded(
            f"no expert service has a free slot: {full[0].address} can neither load an expert nor "
            "let one go; "
            "raise expert_memory or add a service"
        )

    def _early_unloads(self, hosts: Sequence[Host]) -> Moves:
        """For each of the services one expert, if there is any, that is ready on another one."""
        num_ready = Counter(chain.from_iterable(host.hosted for host in self._hosts))
        leaving: Moves = {}
        for host in hosts:
            surplus = sorted(self._surplus[host.address])
            expert = max(surplus, key=lambda expert: num_ready[expert], default=None)
            if expert is not None and num_ready[expert] > 1:
                leaving[host.address] = [expert]
                num_ready[expert] -= 1
        return leaving
