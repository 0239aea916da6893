"""How one layer's pairs fall to the replicas of their experts: whole experts or parts, whichever
costs less.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

# Handing on ends where the two services would be done sooner by less than this share of the whole
# layer's time.
LEAST_GAIN = 0.005
MAX_PASSES = 4  # over all services: what one hands on may make another hand on something in turn


@dataclass(frozen=True)
class Speeds:
    """By service: nanoseconds for each expert it has any pair of, and for each pair."""

    expert_nanos: Sequence[float]
    pair_nanos: Sequence[float]

    def nanos(self, service: int, num_pairs: int) -> float:
        """Nanoseconds of so many pairs of one expert."""
        return self.expert_nanos[service] + num_pairs * self.pair_nanos[service]


def assign_split(
    pairs: Sequence[int],
    hosts: Sequence[Sequence[int]],
    busy_nanos: Sequence[float],
    speeds: Speeds,
    *,
    until_nanos: float = 0.0,
) -> list[list[tuple[int, int]]]:
    """For each active expert of one layer, (service, number of pairs): so that the last service is
    done soon.

    `pairs` [active experts] are positive, `hosts` the services of each, of equals the first is
    preferred; `busy_nanos` [services] is when each could begin, and `until_nanos` when the layer
    could be done at the soonest, whatever is decided here. First each expert goes where
    `assign_whole` lets it, and from the busiest service on to others as long as that helps: fewest
    active experts, as suits decode. Then a busy service hands part of an expert on to another
    replica wherever both are done sooner so, though the weights are read twice: fewest pairs, as
    suits prefill.
    """
    nanos = list(busy_nanos)
    owners = assign_whole(pairs, hosts, nanos, speeds)
    divisible = [
        expert
        for expert in sorted(range(len(pairs)), key=pairs.__getitem__)
        if len(hosts[expert]) > 1
    ]
    if not divisible:
        return [[(owner, count)] for owner, count in zip(owners, pairs, strict=True)]
    for _ in nanos:
        if not _pass_on(owners, divisible, pairs, hosts, nanos, speeds, until_nanos):
            break
    parts = [{owner: count} for owner, count in zip(owners, pairs, strict=True)]
    for _ in range(MAX_PASSES):
        last = max(nanos[service] for part in parts for service in part)
        if last <= until_nanos:
            break
        least = LEAST_GAIN * last
        idle_until = _next_expert(nanos, speeds) + least
        has_changed = False
        for expert in reversed(divisible):
            part = parts[expert]
            # What is handed on is taken from the busiest of its services only.
            source = max(part, key=nanos.__getitem__) if len(part) > 1 else next(iter(part))
            if len(part) > 1 or nanos[source] > idle_until:
                has_changed |= _hand_on(part, source, hosts[expert], nanos, speeds, least)
        if not has_changed:
            break
    return [list(part.items()) for part in parts]


def _next_expert(nanos: Sequence[float], speeds: Speeds) -> float:
    """When the first service would have read another expert's weights: before that it can take
    nothing new.
    """
    soonest: float = min(map(add, nanos, speeds.expert_nanos))
    return soonest


def assign_whole(
    pairs: Sequence[int], hosts: Sequence[Sequence[int]], nanos: list[float], speeds: Speeds
) -> list[int]:
    """One service for every expert, each where it is done soonest; `nanos` is then when each
    service is done.

    Experts that have no choice come first, then the one with most pairs before the others: greedy
    scheduling of the longest job first (Graham, 1969).
    """
    expert_nanos, pair_nanos = speeds.expert_nanos, speeds.pair_nanos
    owners = [0] * len(pairs)
    order = sorted(range(len(pairs)), key=pairs.__getitem__, reverse=True)
    for expert in sorted(order, key=lambda expert: len(hosts[expert]) > 1):
        count, there = pairs[expert], hosts[expert]
        best, soonest = there[0], float("inf")
        for service in there:
            until = nanos[service] + expert_nanos[service] + count * pair_nanos[service]
            if until < soonest:
                best, soonest = service, until
        nanos[best] = soonest
        owners[expert] = best
    return owners


def _pass_on(
    owners: list[int],
    divisible: Sequence[int],
    pairs: Sequence[int],
    hosts: Sequence[Sequence[int]],
    nanos: list[float],
    speeds: Speeds,
    until_nanos: float,
) -> bool:
    """Relieve the busiest service of a whole expert, its taker of another one if need be, and so
    on.

    Whether there is such an augmenting path, after which all that take part are done sooner than
    the busiest was.
    """
    busiest = max(
        set(owners), key=nanos.__getitem__
    )  # one that is given nothing may be as busy as it likes
    if nanos[busiest] <= until_nanos:
        return False
    limit = nanos[busiest] * (1 - LEAST_GAIN)
    if _next_expert(nanos, speeds) >= limit:
        return False
    theirs: list[list[int]] = [[] for _ in nanos]
    for expert in divisible:
        theirs[owners[expert]].append(expert)
    came_from: dict[int, tuple[int, int]] = {}  # service -> who gives it which expert
    waiting = deque([(busiest, 0.0)])  # with what it is given, in nanoseconds
    while waiting:
        giver, given = waiting.popleft()
        for expert in theirs[giver]:
            count = pairs[expert]
            if nanos[giver] + given - speeds.nanos(giver, count) >= limit:
                continue
            for taker in hosts[expert]:
                if taker == busiest or taker in came_from:
                    continue
                came_from[taker] = (giver, expert)
                taken = speeds.nanos(taker, count)
                if nanos[taker] + taken < limit:
                    _follow(taker, came_from, owners, pairs, nanos, speeds)
                    return True
                waiting.append((taker, taken))
    return False


def _follow(
    taker: int,
    came_from: dict[int, tuple[int, int]],
    owners: list[int],
    pairs: Sequence[int],
    nanos: list[float],
    speeds: Speeds,
) -> None:
    while taker in came_from:
        giver, expert = came_from[taker]
        nanos[taker] += speeds.nanos(taker, pairs[expert])
        nanos[giver] -= speeds.nanos(giver, pairs[expert])
        owners[expert] = taker
        taker = giver


def _hand_on(
    part: dict[int, int],
    source: int,
    hosts: Sequence[int],
    nanos: list[float],
    speeds: Speeds,
    least: float,
) -> bool:
    """Hand pairs of one expert, or all, to the replica that could be done first; whether that gains
    enough.
    """
    expert_nanos, pair_nanos = speeds.expert_nanos, speeds.pair_nanos
    target, soonest = source, nanos[source] - least
    for service in hosts:
        until = nanos[service] if service in part else nanos[service] + expert_nanos[service]
        if until < soonest:
            target, soonest = service, until
    if target == source:
        return False
    mine = part[source]
    all_there = soonest + mine * pair_nanos[target]
    all_gone = nanos[source] - expert_nanos[source] - mine * pair_nanos[source]
    # As many as make both done at the same time, rounded to the better side of half a pair.
    both = pair_nanos[source] + pair_nanos[target]
    count = min(mine - 1, int((nanos[source] - soonest) / both + 0.5)) if both else 0
    some_there, some_left = (
        soonest + count * pair_nanos[target],
        nanos[source] - count * pair_nanos[source],
    )
    if max(all_there, all_gone) <= max(some_there, some_left):
        count, some_there, some_left = mine, all_there, all_gone
    if not count or max(some_there, some_left) > nanos[source] - least:
        return False
    nanos[source], nanos[target] = some_left, some_there
    part[target] = part.get(target, 0) + count
    if count == mine:
        del part[source]
    else:
        part[source] = mine - count
    return True
