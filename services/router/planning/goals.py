"""What an operation is to bring about: a target, made of what the services host and of the coverage
asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from services.router.planning.host import Host
from services.router.planning.targets import Target, even_target, missing_replicas, without
from services.wire.expert_key import ExpertKey


@dataclass(frozen=True)
class WantedHosting:
    """The experts of the model, and on how many services each is to be ready."""

    experts: Sequence[ExpertKey]
    coverage: int

    @property
    def layers(self) -> list[int]:
        """The layers with experts, in ascending order."""
        return sorted({layer for layer, _ in self.experts})


@dataclass(frozen=True, kw_only=True)
class Goal(ABC):
    """What is to be brought about.

    A goal that `is_urgent` is carried out as fast as possible, others so that serving hardly
    notices. A goal that `ends_when_outdated` is abandoned if another router changed a service
    first, because it was planned for the old hosting.
    """

    is_urgent: bool = False
    ends_when_outdated: bool = False

    @property
    def emptied(self) -> Set[str]:
        """Addresses of services that are given no experts meanwhile, and host none in the end."""
        return frozenset()

    @abstractmethod
    def target(self, hosts: Sequence[Host], wanted: WantedHosting) -> Target:
        """Who is to host what. Raises ServingError when that cannot be."""


@dataclass(frozen=True)
class Stated(Goal):
    """Just what is said, service by service."""

    experts: Mapping[str, frozenset[ExpertKey]]

    def target(self, hosts: Sequence[Host], wanted: WantedHosting) -> Target:
        """As it was said, whoever is there."""
        return {address: set(experts) for address, experts in self.experts.items()}

    def __str__(self) -> str:
        num_replicas = sum(len(experts) for experts in self.experts.values())
        return f"a stated placement of {num_replicas} replicas on {len(self.experts)} services"


@dataclass(frozen=True)
class Even(Goal):
    """Experts spread evenly over the services that are there."""

    def target(self, hosts: Sequence[Host], wanted: WantedHosting) -> Target:
        """Even, with few moves from what is hosted."""
        return even_target(wanted.experts, hosts, wanted.coverage)

    def __str__(self) -> str:
        return "an even placement"


@dataclass(frozen=True)
class Without(Goal):
    """One service emptied, which waits to be stopped."""

    address: str
    is_urgent: bool = field(default=True, kw_only=True)

    @property
    def emptied(self) -> Set[str]:
        """That one."""
        return {self.address}

    def target(self, hosts: Sequence[Host], wanted: WantedHosting) -> Target:
        """What is hosted, its experts moved to the others."""
        return without(self.address, wanted.experts, hosts, wanted.coverage)

    def __str__(self) -> str:
        return f"a placement without {self.address}"


@dataclass(frozen=True)
class Trimmed(Goal):
    """Replicas beyond the coverage let go by the services that have no memory left but for a move.

    What is missing then is put in their places, experts that are nowhere first.
    """

    def target(self, hosts: Sequence[Host], wanted: WantedHosting) -> Target:
        """What is hosted, less what is too much; the fullest services let go first."""
        staying = [host for host in hosts if not host.is_draining and host.takes]
        replicas = {key: sum(key in host.hosted for host in staying) for key in wanted.experts}
        kept = {host.address: set(host.hosted) for host in hosts}
        for host in sorted(staying, key=lambda host: (host.num_free, host.address)):
            if host.num_free > 1:
                continue
            for key in sorted(host.hosted):
                if replicas[key] > wanted.coverage:
                    replicas[key] -= 1
                    kept[host.address].discard(key)
        trimmed = [replace(host, hosted=kept[host.address]) for host in hosts]
        loads = missing_replicas(wanted.experts, trimmed, wanted.coverage).loads
        return {
            host.address: {*kept[host.address], *host.loading, *loads.get(host.address, ())}
            for host in hosts
        }

    def __str__(self) -> str:
        return "a placement without surplus replicas"
