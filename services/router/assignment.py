"""Which of its replicas computes an expert's pairs in one layer: policy without I/O."""

import time
from collections.abc import Mapping, Sequence
from math import inf
from operator import itemgetter

import numpy as np

from services.router.pace import Pace
from services.router.shares import NOBODY, Indices

SEVERAL = -2  # beside NOBODY: an expert that more than one service could compute

Choices = Mapping[int, Sequence[int]]  # expert -> services, of equals the first is taken


def assign(
    experts: Indices, owners: Indices, choices: Choices, paces: Sequence[Pace], now: int | None = None
) -> Indices:
    """`owners` [experts] with one service for each expert that is SEVERAL's and has pairs; NOBODY where it has none.

    `experts` [pairs] is flat, with DROPPED for a pair that is not computed. An expert goes where it is
    expected to be done first, the one with most pairs before the others, after what is on the way already and what
    must be computed by one service: greedy scheduling of the longest job first (Graham, 1969). All pairs of an expert
    go together, since a service reads its weights once. `now` is nanoseconds of the monotonic clock.
    """
    counts = np.bincount(experts + 1, minlength=1)[1:]  # DROPPED pairs are not counted
    with_pairs = counts.nonzero()[0]
    sizes = counts[with_pairs].tolist()
    waiting, open_experts = [0] * len(paces), []
    for expert, size, owner in zip(with_pairs.tolist(), sizes, owners[with_pairs].tolist(), strict=True):
        if owner >= 0:
            waiting[owner] += size
        elif owner == SEVERAL:
            open_experts.append((size, expert))
    assigned: Indices = np.maximum(owners, NOBODY)  # SEVERAL is below, and experts without pairs are computed nowhere
    if open_experts:
        open_experts.sort(key=itemgetter(0), reverse=True)
        nanos_per_pair, done = _expected(paces, waiting, time.perf_counter_ns() if now is None else now)
        for size, expert in open_experts:
            best, soonest = NOBODY, inf
            for service in choices[expert]:
                until = done[service] + size * nanos_per_pair[service]
                if until < soonest:
                    best, soonest = service, until
            done[best] = soonest
            assigned[expert] = best
    return assigned


def _expected(paces: Sequence[Pace], waiting: Sequence[int], now: int) -> tuple[list[float], list[float]]:
    """Each service's time for a pair, and when it is done with what it must compute, from now on in nanoseconds.

    A service that was never heard counts as the mean of the others; where none was, pairs alone count.
    """
    known = [pace.estimate(now) for pace in paces if pace.is_known]
    mean = tuple(sum(column) / len(known) for column in zip(*known, strict=True)) if known else (0.0, 1.0)
    nanos_per_pair, done = [], []
    for pace, pairs in zip(paces, waiting, strict=True):
        wire, per_pair = pace.estimate(now) if pace.is_known else mean
        per_pair = max(per_pair, 1.0)  # one that takes no time at all would be given everything
        nanos_per_pair.append(per_pair)
        done.append(wire + (pace.in_flight_pairs + pairs) * per_pair)
    return nanos_per_pair, done
