"""The work of one layer, shared out over the replicas as evenly as they allow."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

NEGLIGIBLE = (
    1e-6  # nanoseconds: an expert of which a mean step takes no longer has no work to share out
)
# Leveling ends where a service's time would change by less than this share of the mean one's.
PRECISION = 3e-3
MAX_SHARINGS = 50  # of one expert, on average, in one leveling


@dataclass(frozen=True)
class Rates:
    """Nanoseconds by service, in one layer: whatever it computes, for each active expert, and for
    each pair.
    """

    fixed: Sequence[float]
    expert: Sequence[float]
    pair: Sequence[float]


@dataclass(frozen=True)
class WorkSnapshot:
    """What a layer's work was."""

    shares: list[dict[int, float]]
    nanos: list[float]
    experts_of: list[set[int]]


class LayerWork:
    """Who hosts which expert of one layer, and what each service has to do in a mean step.

    `shares` has for each expert the part of its work that each of its services does. It is divided
    so that the busiest service has as little as possible: what a dispatcher comes to that sees what
    every service has to do already. `nanos` is each service's time, `experts_of` the experts each
    hosts.
    """

    def __init__(self, rates: Rates, tokens: Sequence[float], active: Sequence[float]) -> None:
        self.shares: list[dict[int, float]] = [{} for _ in tokens]
        self.nanos: list[float] = list(rates.fixed)
        self.experts_of: list[set[int]] = [set() for _ in rates.fixed]
        self.tokens = tokens
        times = np.outer(active, rates.expert) + np.outer(tokens, rates.pair)
        self._times = times
        self._rows: list[list[float] | None] = [None] * len(
            tokens
        )  # most of them are never asked for
        self._has_work: list[bool] = (times.min(axis=1, initial=np.inf) > NEGLIGIBLE).tolist()
        # Where all had the same to do.
        num_services = max(1, len(rates.fixed))
        self.even_nanos = (sum(rates.fixed) + float(times.sum()) / num_services) / num_services
        self._precision = max(NEGLIGIBLE, PRECISION * self.even_nanos)

    @property
    def makespan(self) -> float:
        """Nanoseconds until the last service is done."""
        most = max(self.nanos, default=0.0)
        if (
            most and not self.experts_of[self.nanos.index(most)]
        ):  # one that hosts nothing is not asked
            return max(
                (nanos for nanos, mine in zip(self.nanos, self.experts_of, strict=True) if mine),
                default=0.0,
            )
        return most

    def times(self, expert: int) -> list[float]:
        """How long each service would take for all of the expert's work, in nanoseconds."""
        row = self._rows[expert]
        if row is None:
            row = self._rows[expert] = self._times[expert].tolist()
        return row

    def add(self, expert: int, service: int) -> None:
        """One more replica; `level` has it used."""
        is_first = not self.shares[expert]
        self.shares[expert][service] = 1.0 if is_first else 0.0
        self.experts_of[service].add(expert)
        if is_first:
            self.nanos[service] += float(self._times[expert, service])

    def remove(self, expert: int, service: int) -> None:
        """One replica less; the least busy of the others, if there are any, does its part until
        `level` is called.
        """
        share = self.shares[expert].pop(service)
        self.nanos[service] -= share * float(self._times[expert, service])
        self.experts_of[service].discard(expert)
        if others := self.shares[expert]:
            heir = min(others, key=self.nanos.__getitem__)
            others[heir] += share
            self.nanos[heir] += share * float(self._times[expert, heir])

    def level(self, services: Iterable[int] | None = None) -> None:
        """Share out anew after changes on `services`, or anywhere: expert by expert, as far as
        changes spread.
        """
        waiting = deque(range(len(self.nanos)) if services is None else services)
        for _ in range(MAX_SHARINGS * len(self.nanos)):
            if not waiting:
                return
            service = waiting.popleft()
            for expert in tuple(self.experts_of[service]):
                if len(self.shares[expert]) > 1 and self._has_work[expert]:
                    waiting.extend(
                        changed for changed in self._share_out(expert) if changed not in waiting
                    )

    def snapshot(self) -> WorkSnapshot:
        """What to `restore`."""
        return WorkSnapshot(
            [share.copy() for share in self.shares],
            self.nanos.copy(),
            [set(experts) for experts in self.experts_of],
        )

    def restore(self, snapshot: WorkSnapshot) -> None:
        """Take back everything since the snapshot."""
        self.shares, self.nanos, self.experts_of = (
            snapshot.shares,
            snapshot.nanos,
            snapshot.experts_of,
        )

    def _share_out(self, expert: int) -> list[int]:
        """Fill the expert's services up to one level, the least busy first; those whose time has
        changed.
        """
        share, nanos, times = self.shares[expert], self.nanos, self.times(expert)
        if len(share) == 2:  # as most are
            return self._share_between(share, times)
        others = sorted(
            (nanos[service] - part * times[service], service) for service, part in share.items()
        )
        # All of it: sum of (level - other work) / time over the services below the level is 1.
        weight = weighted = level = 0.0
        for other, service in others:
            if weight and other >= level:
                break
            weight += 1 / times[service]
            weighted += other / times[service]
            level = (1 + weighted) / weight
        changed = []
        for other, service in others:
            until = max(level, other)
            if abs(until - nanos[service]) > self._precision:
                changed.append(service)
            nanos[service] = until
            share[service] = (until - other) / times[service]
        return changed

    def _share_between(self, share: dict[int, float], times: Sequence[float]) -> list[int]:
        """The same for an expert of two services."""
        nanos = self.nanos
        (one, its_part), (other, others_part) = share.items()
        part = (nanos[one] - nanos[other]) / (times[one] + times[other])
        part = min(max(part, -others_part), its_part)
        share[one], share[other] = its_part - part, others_part + part
        nanos[one] -= part * times[one]
        nanos[other] += part * times[other]
        changes = ((one, part * times[one]), (other, part * times[other]))
        return [service for service, change in changes if abs(change) > self._precision]
