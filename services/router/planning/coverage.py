"""Every expert on as many services as are asked for, before anything is done about speed."""

from itertools import product

from services.router.planning.draft import Draft, Replica
from services.wire.errors import Overloaded


def cover(draft: Draft) -> dict[Replica, str]:
    """Add the replicas that lack, with why; those too many where a transfer slot is taken are let
    go.

    Where there is no room a replica beyond the coverage gives way, for an expert that has no home
    any second one, and then a transfer slot. Fewer replicas than asked for are no error; raises
    Overloaded when an expert finds no home.
    """
    added: dict[Replica, str] = {}
    for num_replicas in range(draft.coverage):
        for layer, work in enumerate(draft.works):
            for expert, there in enumerate(work.shares):
                if len(there) != num_replicas:
                    continue
                service = _home(draft, layer, expert)
                if service is None and (exchange := _exchange(draft, layer, expert)) is not None:
                    (other_layer, other, service), taker = exchange
                    draft.remove(other_layer, other, service)
                    draft.add(other_layer, other, taker)
                    why = added.pop(
                        (other_layer, other, service), "it makes room for another one's coverage"
                    )
                    added[other_layer, other, taker] = why
                if service is not None:
                    draft.add(layer, expert, service)
                    added[layer, expert, service] = (
                        "it is on no service" if not num_replicas else "to be covered"
                    )
                elif not num_replicas:
                    raise Overloaded(
                        f"too little expert memory in the cluster: expert {expert} of layer "
                        f"{draft.layers[layer]} "
                        "finds no place; raise expert_memory or add services"
                    )
    for service, host in enumerate(draft.hosts):
        while host.takes and draft.room[service] < 0 and draft.spare[service]:
            draft.remove(*least_used(draft, service), service)
    return added


def least_used(draft: Draft, service: int) -> tuple[int, int]:
    """The (layer, expert) of the service's spare replicas of which it computes least; the service
    has one.
    """
    return min(
        draft.spare[service], key=lambda key: (draft.works[key[0]].shares[key[1]][service], key)
    )


def _home(draft: Draft, layer: int, expert: int) -> int | None:
    """The least busy service that has room, or could make some."""
    work = draft.works[layer]
    there = work.shares[expert]
    taking = [other for other, host in enumerate(draft.hosts) if host.takes and other not in there]
    by_time = sorted(taking, key=lambda service: work.nanos[service] + work.times(expert)[service])
    for service in by_time:
        if draft.room[service] > 0:
            return service
    for service in by_time:
        if draft.spare[service]:
            draft.remove(*least_used(draft, service), service)
            return service
    return None if there else _last_home(draft, by_time)


def _exchange(draft: Draft, layer: int, expert: int) -> tuple[Replica, int] | None:
    """A replica of another expert, and who can take it in, where all who have room host this expert
    already.
    """
    there = draft.works[layer].shares[expert]
    takers = [taker for taker in there if draft.hosts[taker].takes and draft.room[taker] > 0]
    others = [other for other, host in enumerate(draft.hosts) if host.takes and other not in there]
    for taker, service in product(takers, others):
        for other_layer, work in enumerate(draft.works):
            if leaving := work.experts_of[service] - work.experts_of[taker]:
                return (other_layer, min(leaving), service), taker
    return None


def _last_home(draft: Draft, services: list[int]) -> int | None:
    """Room for an expert that is nowhere: what a second replica takes, or a transfer slot."""
    for service in services:
        for layer, work in enumerate(draft.works):
            second = next(
                (
                    expert
                    for expert in sorted(work.experts_of[service])
                    if len(work.shares[expert]) > 1
                ),
                None,
            )
            if second is not None:
                draft.remove(layer, second, service)
                return service
    return next(
        (
            service
            for service in services
            if draft.limits[service] - draft.room[service] < draft.hosts[service].num_slots
        ),
        None,
    )
