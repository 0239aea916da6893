"""The baseline: replicas to the most loaded experts, packed evenly and from nothing (DeepSeek's
EPLB, global).
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from services.router.planning.coverage import cover
from services.router.planning.draft import Draft, Replica
from services.router.planning.strategy import Proposal


@dataclass(frozen=True)
class Eplb:
    """Greedy replication, then packing of the heaviest first, in each layer by itself; counts
    pairs, as published.

    As published it knows nothing of what is hosted now, of speeds or of coverage, gives every layer
    as many replicas, and may put two of one expert on a service, where one remains. What lacks
    after that is covered like elsewhere.
    """

    def propose(self, draft: Draft) -> Proposal:
        """Change the draft; see Strategy."""
        taking = [service for service, host in enumerate(draft.hosts) if host.takes]
        slots = [
            min(draft.num_experts, draft.limits[service] // max(1, len(draft.works)))
            for service in taking
        ]
        # What cannot be changed stays.
        replicas: set[Replica] = {
            replica for replica in draft.hosted() if not draft.hosts[replica[2]].takes
        }
        for layer, work in enumerate(draft.works):
            for place, expert in packed(work.tokens, slots):
                replicas.add((layer, expert, taking[place]))
        draft.replace(replicas)
        cover(draft)
        return Proposal(
            {},
            "the most loaded experts are replicated and all are packed anew, whatever is hosted "
            "now",
        )


def packed(weights: Sequence[float], slots: Sequence[int]) -> list[tuple[int, int]]:
    """(place, expert) for every slot of every place, as far as no expert has more replicas than
    there are places.

    Where the slots are fewer than the experts, the heaviest are placed.
    """
    counts = [1] * len(weights)
    by_part = [(-weight, expert) for expert, weight in enumerate(weights)]
    heapq.heapify(by_part)
    num_left = sum(slots) - len(weights)
    while num_left > 0 and by_part:
        _, expert = heapq.heappop(by_part)
        if counts[expert] < len(slots):
            counts[expert] += 1
            num_left -= 1
            heapq.heappush(by_part, (-weights[expert] / counts[expert], expert))
    items = sorted(
        (
            (weight / count, expert, count)
            for expert, (weight, count) in enumerate(zip(weights, counts, strict=True))
        )
    )
    places = [(0.0, place) for place, room in enumerate(slots) if room > 0]
    left = list(slots)
    found: list[tuple[int, int]] = []
    for weight, expert, count in reversed(items):
        for _ in range(count):
            if not places:
                return found
            total, place = places[0]
            found.append((place, expert))
            left[place] -= 1
            if left[place] > 0:
                heapq.heapreplace(places, (total + weight, place))
            else:
                heapq.heappop(places)
    return found
