"""Which service gets which expert: pure policy over what services host and can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.wire.errors import BadState

ExpertKey = tuple[int, int]  # layer, expert


@dataclass
class Holder:
    """One service, as far as placing is concerned."""

    address: str
    free_bytes: int
    hosted: set[ExpertKey] = field(default_factory=set)


def spread_evenly(
    experts: Sequence[ExpertKey], expert_bytes: Mapping[int, int], holders: Sequence[Holder]
) -> dict[str, list[ExpertKey]]:
    """Give every expert that nobody hosts to a service: evenly within each layer, then over all, as memory allows.

    `expert_bytes` is the size of one expert by layer. Raises BadState, naming what is needed and what there is, when
    the memory of all services together does not hold the experts.
    """
    hosted = set[ExpertKey]().union(*(holder.hosted for holder in holders))
    missing = [key for key in experts if key not in hosted]
    free = {holder.address: holder.free_bytes for holder in holders}
    in_layer = {(holder.address, layer): 0 for holder in holders for layer in expert_bytes}
    in_all = {holder.address: len(holder.hosted) for holder in holders}
    for holder in holders:
        for layer, _ in holder.hosted:
            in_layer[holder.address, layer] += 1
    given: dict[str, list[ExpertKey]] = {holder.address: [] for holder in holders}
    for layer, expert in missing:
        fitting = [address for address in free if free[address] >= expert_bytes[layer]]
        if not fitting:
            raise BadState(_too_little(missing, expert_bytes, holders))
        chosen = min(fitting, key=lambda address: (in_layer[address, layer], in_all[address]))
        given[chosen].append((layer, expert))
        free[chosen] -= expert_bytes[layer]
        in_layer[chosen, layer] += 1
        in_all[chosen] += 1
    return {address: keys for address, keys in given.items() if keys}


def _too_little(missing: Sequence[ExpertKey], expert_bytes: Mapping[int, int], holders: Sequence[Holder]) -> str:
    needed = sum(expert_bytes[layer] for layer, _ in missing)
    free = sum(holder.free_bytes for holder in holders)
    return (
        f"too little expert memory in the cluster: {len(missing)} experts to place take {needed:,} bytes, "
        f"{len(holders)} services have {free:,} bytes free; raise expert_memory or add services"
    )
