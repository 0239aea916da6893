"""Evenness in numbers: how many experts of each layer a service is to host, and which, with few
changes.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from services.router.arrays import Counts

Places = npt.NDArray[np.bool_]  # [services, experts]: who hosts what of one layer


def even_shares(total: int, rooms: Counts, hosted: Counts) -> Counts:
    """`total` experts shared out as evenly as `rooms` [services] allow, which hold them.

    What does not divide goes to the services that have most already, `hosted` [services].
    """
    level, shares, left = 0, np.zeros_like(rooms), total
    while left >= (num_open := int((rooms > level).sum())) > 0:
        # To the next service's room, or as far as what is left goes.
        step = min(left // num_open, int(rooms[rooms > level].min()) - level)
        level += step
        shares = np.minimum(rooms, level)
        left = total - int(shares.sum())
    order = np.lexsort((-hosted, rooms <= level))
    shares[order[:left]] += 1
    return shares


def even_quotas(shares: Counts, layer_totals: Counts, hosted: Counts) -> Counts:
    """Each service's share in equal parts over the layers: [services, layers], with these sums in
    both directions.

    `layer_totals` [layers] differ by one at most and add up to the shares. What does not divide is
    put where `hosted` [services, layers] has it already. Such a matrix exists, and is found layer
    by layer as long as every service whose remainder has no layer to spare is served first (Gale
    and Ryser's theorem for equal columns).
    """
    num_layers = len(layer_totals)
    base, extra = np.divmod(shares, num_layers)
    quotas = np.repeat(base[:, None], num_layers, axis=1)
    for layer in range(num_layers):
        num_chosen = int(layer_totals[layer] - base.sum())
        is_due = extra == num_layers - layer
        order = np.lexsort((-extra, hosted[:, layer] <= base, extra == 0, ~is_due))
        chosen = order[:num_chosen]
        quotas[chosen, layer] += 1
        extra[chosen] -= 1
    return quotas


def fill_quotas(hosted: Places, quotas: Counts, replicas: Counts, shared: Counts) -> Places:
    """Who is to host what of one layer: `quotas` [services] and `replicas` [experts] are met,
    `hosted` mostly stays.

    The two add up to the same, replicas differ by one at most, and no quota is above the number of
    experts. `shared` [services, services] counts what two of them host both in other layers: little
    is best, so that what one service leaves behind when it is lost falls to all others alike.
    """
    placed = hosted.copy()
    _drop_replicas(placed, quotas, replicas)
    for service in np.flatnonzero(placed.sum(axis=1) > quotas):
        mine = np.flatnonzero(placed[service])
        # What has replicas elsewhere is dropped first.
        leaving = mine[
            np.argsort(-placed.sum(axis=0)[mine], kind="stable")[: len(mine) - quotas[service]]
        ]
        placed[service, leaving] = False
    shared = shared + shared_experts(placed)
    lacking = replicas - placed.sum(axis=0)
    room = quotas - placed.sum(axis=1)
    for expert in np.repeat(np.arange(len(lacking)), lacking).tolist():
        there = placed[:, expert]
        others = shared[there].sum(axis=0)
        suits = np.where(there | (room <= 0), -1, room * (int(others.max()) + 1) - others)
        best = int(suits.argmax())
        chosen = best if suits[best] >= 0 else _make_room(placed, hosted, room, expert)
        shared[there, chosen] += 1
        shared[chosen, there] += 1
        placed[chosen, expert] = True
        room[chosen] -= 1
    return placed


def shared_experts(placed: Places) -> Counts:
    """How many experts each two services host both: [services, services]."""
    numbers = placed.astype(np.float32)  # as those the product is fast, and the counts are exact
    return (numbers @ numbers.T).astype(np.int64)


def _drop_replicas(placed: Places, quotas: Counts, replicas: Counts) -> None:
    for expert in np.flatnonzero(placed.sum(axis=0) > replicas):
        while placed[:, expert].sum() > replicas[expert]:
            excess = placed.sum(axis=1) - quotas
            placed[np.where(placed[:, expert], excess, np.iinfo(np.int64).min).argmax(), expert] = (
                False
            )


def _make_room(placed: Places, hosted: Places, room: Counts, expert: int) -> int:
    """A service that can take `expert`, after others have passed experts on to whoever has room: an
    augmenting path.
    """
    came_from: dict[int, int] = {}
    # Who has room hosts the expert already, else it would have been given it.
    waiting = deque(int(service) for service in np.flatnonzero(room > 0))
    seen = set(waiting)
    while waiting:
        receiver = waiting.popleft()
        if not placed[receiver, expert]:
            return _pass_along(placed, hosted, room, receiver, came_from)
        givers = np.flatnonzero((placed & ~placed[receiver]).any(axis=1))
        for giver in givers.tolist():
            if giver not in seen:
                seen.add(giver)
                came_from[giver] = receiver
                waiting.append(giver)
    raise AssertionError("quotas and replicas that add up can always be met")


def _pass_along(
    placed: Places, hosted: Places, room: Counts, giver: int, came_from: dict[int, int]
) -> int:
    last = giver
    while giver in came_from:
        receiver = came_from[giver]
        passable = placed[giver] & ~placed[receiver]
        # Best one that is not there yet anyway, so that no move is added.
        given = int((passable * (1 + ~hosted[giver] + hosted[receiver])).argmax())
        placed[giver, given], placed[receiver, given] = False, True
        room[giver] += 1
        room[receiver] -= 1
        giver = receiver
    return last
