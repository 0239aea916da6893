"""Our strategy: from what is hosted, the moves that shorten steps by more than they cost, layer by
layer.
"""

import heapq
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from services.router.planning.coverage import least_used
from services.router.planning.draft import Draft, Replica
from services.router.planning.strategy import Proposal, ReplicaReason
from services.router.planning.work import LayerWork

# Services looked at in a layer: of the busiest those that are within a thousandth of each other,
# and of the idlest.
MAX_BUSIEST, MAX_IDLEST = 1, 4
NEARLY = 1 - 1e-3
# Changes made in the hope that a further one pays: where several services are the busiest, one
# alone brings nothing.
MAX_AHEAD = 8


class ReplicaChange(NamedTuple):
    """One expert put on a further service, which may have to give up another one (layer and expert)
    for it.

    Where there is a `source`, the two experts change places.
    """

    expert: int
    target: int
    gives_way: tuple[int, int] | None = None
    source: int | None = None

    @property
    def num_loads(self) -> int:
        """Experts that are loaded for it."""
        return 1 if self.source is None else 2


@dataclass(frozen=True)
class Balanced:
    """Shortens, summed over layers, the time of the service that takes longest: greedy local
    search.

    Where a layer's busiest services can be relieved by a further replica, or by exchanging two
    experts, that is done if it shortens steps by at least `least_gain` of a mean layer's time for
    every expert loaded: memory is spent on the layers that gain most by it. A replica that serves
    little gives way to one that serves more. Steps are those that the draft draws: replicas pay
    that let steps be even which differ from the mean one. At most `max_moves` experts are loaded
    for this, if that is given.
    """

    least_gain: float = 0.003
    max_moves: int | None = None

    def propose(self, draft: Draft) -> Proposal:
        """Change the draft; see Strategy."""
        even = sum(work.even_nanos for work in draft.works)
        price = max(self.least_gain * even / max(1, len(draft.works)), 1e-9 * even, 1e-9)
        reasons: dict[Replica, ReplicaReason] = {}
        while made := self._pass(draft, price, len(reasons)):
            reasons |= made
        return Proposal(reasons, _summary(draft, price, is_stopped=len(reasons) == self.max_moves))

    def _pass(self, draft: Draft, price: float, num_made: int) -> dict[Replica, ReplicaReason]:
        """Relieve each layer until it cannot be relieved; always the one that gained most by what
        was done last.
        """
        reasons: dict[Replica, ReplicaReason] = {}
        waiting = [
            (work.even_nanos - draft.makespan(layer), layer)
            for layer, work in enumerate(draft.works)
        ]
        heapq.heapify(waiting)
        while waiting:
            _, layer = heapq.heappop(waiting)
            most = None if self.max_moves is None else self.max_moves - num_made - len(reasons)
            if made := _relieve(draft, layer, price, most):
                reasons |= made
                heapq.heappush(waiting, (-next(iter(made.values())).gain_nanos, layer))
        return reasons


def _relieve(
    draft: Draft, layer: int, price: float, most: int | None
) -> dict[Replica, ReplicaReason]:
    """As few changes as pay together, and what they load; none where none do."""
    draft.mark()
    nanos = draft.works[layer].nanos
    before = {layer: draft.makespan(layer)}
    busiest = draft.hosts[max(range(len(nanos)), key=nanos.__getitem__)].address
    loads: list[Replica] = []
    for _ in range(MAX_AHEAD):
        step = _best_step(draft, layer, price)
        if step is None or (most is not None and len(loads) + step.num_loads > most):
            break
        if step.gives_way is not None:
            before.setdefault(step.gives_way[0], draft.makespan(step.gives_way[0]))
        loads += _make(draft, layer, step)
        gain = sum(nanos - draft.makespan(changed) for changed, nanos in before.items())
        if gain >= price * len(loads):
            sooner = 1 - draft.makespan(layer) / before[layer]
            why = (
                f"{busiest} takes longest for layer {draft.layers[layer]}, which is done "
                f"{sooner:.1%} sooner so"
            )
            return {replica: ReplicaReason(gain / len(loads), why) for replica in loads}
    draft.take_back()
    return {}


def _make(draft: Draft, layer: int, step: ReplicaChange) -> list[Replica]:
    """Make the change; the replicas it loads."""
    loads = [(layer, step.expert, step.target)]
    if step.gives_way is not None:
        if step.source is not None:
            draft.remove(layer, step.expert, step.source)
            draft.add(*step.gives_way, step.source)
            loads.append((*step.gives_way, step.source))
        draft.remove(*step.gives_way, step.target)
    draft.add(layer, step.expert, step.target)
    return loads


def _best_step(draft: Draft, layer: int, price: float) -> ReplicaChange | None:
    """What relieves the busiest services most; two experts change places only where no
    copy pays.
    """
    works = draft.steps(layer)
    scores: dict[ReplicaChange, float] = defaultdict(float)  # nanoseconds gained for each load
    for work in works:
        for source, target in _pairs(draft, work):
            _score_copies(scores, draft, work, layer, source, target)
    if not scores or max(scores.values()) < price * len(works):
        # Only what helps in the mean step: other steps would be drawn another time.
        work = draft.works[layer]
        scores = defaultdict(float, {step: score / len(works) for step, score in scores.items()})
        for source, target in _pairs(draft, work):
            if draft.hosts[source].takes:
                _score_exchanges(scores, work, layer, source, target)
    return max(scores, key=scores.__getitem__, default=None)


def _pairs(draft: Draft, work: LayerWork) -> list[tuple[int, int]]:
    """One of the busiest services and one of the idlest."""
    nanos = work.nanos
    by_time = sorted(range(len(nanos)), key=nanos.__getitem__)
    most = NEARLY * nanos[by_time[-1]]
    busiest = [service for service in by_time[-MAX_BUSIEST:] if nanos[service] >= most]
    idlest = [
        service for service in by_time if draft.hosts[service].takes and nanos[service] < most
    ]
    return list(product(busiest, idlest[:MAX_IDLEST]))


def _score_copies(
    scores: dict[ReplicaChange, float],
    draft: Draft,
    work: LayerWork,
    layer: int,
    source: int,
    target: int,
) -> None:
    """Replicas on `target` of what `source` computes; one that is spare there gives way if there is
    no room.
    """
    gives_way, harm = None, 0.0
    if draft.room[target] <= 0:
        if not draft.spare[target]:
            return
        gives_way = least_used(draft, target)
        harm = _harm(draft, *gives_way, target)
    busy, idle, mine = work.nanos[source], work.nanos[target], work.experts_of[target]
    for expert in work.experts_of[source]:
        if expert in mine:
            continue
        times = work.times(expert)
        here, there, part = times[source], times[target], work.shares[expert][source]
        if part * (here + there) > busy - idle:  # then as much as makes both equally busy
            part = (busy - idle) / (here + there)
        after = max(busy - part * here, idle + part * there)
        if after < busy - harm:
            scores[ReplicaChange(expert, target, gives_way)] += busy - harm - after


def _score_exchanges(
    scores: dict[ReplicaChange, float], work: LayerWork, layer: int, source: int, target: int
) -> None:
    """Two experts, each on one of the two services, that change places."""
    nanos = work.nanos
    for expert in work.experts_of[source] - work.experts_of[target]:
        part, times = work.shares[expert][source], work.times(expert)
        busy, idle = nanos[source] - part * times[source], nanos[target] + part * times[target]
        for other in work.experts_of[target] - work.experts_of[source]:
            part, times = work.shares[other][target], work.times(other)
            after = max(busy + part * times[source], idle - part * times[target])
            if after < nanos[source]:
                scores[ReplicaChange(expert, target, (layer, other), source)] += (
                    nanos[source] - after
                ) / 2


def _harm(draft: Draft, layer: int, expert: int, service: int) -> float:
    """How much longer the layer would take if the replica were let go, as far as a look at its
    other services tells.
    """
    work = draft.works[layer]
    share, times = work.shares[expert], work.times(expert)
    after = min(
        work.nanos[other] + share[service] * times[other] for other in share if other != service
    )
    return max(0.0, after - work.makespan)


def _summary(draft: Draft, price: float, *, is_stopped: bool) -> str:
    even = sum(work.even_nanos for work in draft.works)
    if not even:
        return "there is no load"
    above = (
        f"layers take {float(draft.makespans().sum()) / even - 1:.1%} longer than if all services "
        "were even"
    )
    if is_stopped:
        return f"no more moves are allowed at a time; {above}"
    return f"no further move shortens a step by {price / even:.3%} for each expert loaded; {above}"
