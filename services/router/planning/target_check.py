"""Whether a target may be carried out: one check, and one status for each reason against it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain

from services.router.planning.host import Host
from services.wire.errors import BadState, NotFound, Overloaded
from services.wire.expert_key import ExpertKey


def check_target(
    target: Mapping[str, Set[ExpertKey]],
    experts: Sequence[ExpertKey],
    hosts: Sequence[Host],
    coverage: int,
    *,
    force: bool = False,
) -> None:
    """Refuse a target that must not be begun; `force` allows fewer replicas than `coverage`, though
    never none.

    Raises NotFound for an expert that the model does not have, BadState for an address that is not
    there, even where it is to host nothing, and for an expert on fewer services than `coverage`;
    and what `check_services` and `check_served` do.
    """
    known, present = set(experts), {host.address for host in hosts}
    for address, keys in target.items():
        if unknown := keys - known:
            raise NotFound(f"the model has no {_name(min(unknown))}, which {address} is to host")
        if address not in present:
            raise absent(address)
    check_services(target, hosts)
    check_served(experts, target)
    replicas = Counter(chain.from_iterable(target.values()))
    uncovered = [key for key in experts if replicas[key] < coverage]
    if uncovered and not force:
        raise BadState(
            f"{_some(uncovered)} would have fewer than {coverage} replicas; force carries it out "
            "even so"
        )


def check_services(target: Mapping[str, Set[ExpertKey]], hosts: Sequence[Host]) -> None:
    """Refuse a target that the services cannot come to host; one that is to host nothing may be
    gone.

    Raises BadState for a service that is not there, that is draining, or that has read another
    checkpoint; Overloaded for more experts than slots.
    """
    by_address = {host.address: host for host in hosts}
    for address, keys in target.items():
        if keys:
            _check_service(address, keys, by_address.get(address))


def check_served(experts: Iterable[ExpertKey], target: Mapping[str, Set[ExpertKey]]) -> None:
    """Refuse a target that leaves any of the experts on no service; raises BadState."""
    if unserved := set(experts).difference(*target.values()):
        raise BadState(f"{_some(sorted(unserved))} would be on no service")


def absent(address: str) -> BadState:
    """What is said of a service that is not there."""
    return BadState(f"there is no expert service {address}, or it does not answer")


def too_little_memory(num_unplaced: int, hosts: Sequence[Host]) -> Overloaded:
    """What is said where experts find no place on the services."""
    taking = [host for host in hosts if host.takes and not host.is_draining]
    return Overloaded(
        f"too little expert memory in the cluster: {num_unplaced} experts find no place, "
        f"{len(taking)} services that "
        f"take experts have memory for {sum(host.num_slots for host in taking)}; raise "
        "expert_memory or add services"
    )


def _check_service(address: str, keys: Set[ExpertKey], host: Host | None) -> None:
    if host is None:
        raise absent(address)
    if host.is_draining:
        raise BadState(f"expert service {address} is draining and takes no experts")
    if refused := keys & host.refused:
        raise BadState(
            f"expert service {address} has read another checkpoint: it cannot host "
            f"{_name(min(refused))}"
        )
    if len(keys) > host.num_slots:
        raise Overloaded(
            f"expert service {address} is to host {len(keys)} experts; it has memory for "
            f"{host.num_slots}"
        )


def _name(key: ExpertKey) -> str:
    return f"expert {key[1]} of layer {key[0]}"


def _some(keys: Sequence[ExpertKey]) -> str:
    return _name(keys[0]) + (f" and {len(keys) - 1} others" if len(keys) > 1 else "")
