"""Which of its replicas computes an expert's pairs in one layer, or which part of them: policy
without I/O.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.router.arrays import Indices
from services.router.dispatch.frame_pairs import NOBODY
from services.router.dispatch.split import Speeds, assign_split, assign_whole
from services.router.peers.pace import Estimate, Pace
from services.wire.received import Words

# Services of one kind seem to differ by so much; pairs that followed such noise would come to lie
# less evenly.
DEAD_BAND = 1.15
SEVERAL = -2  # beside NOBODY: an expert that more than one service could compute

Choices = Mapping[int, Sequence[int]]  # expert -> services, of equals the first is taken


@dataclass(slots=True)
class Assigned:
    """Who computes each pair: the service of its part of its expert, or NOBODY.

    `parts` [pairs] is flat, with DROPPED for a pair that is not computed; `owners` [parts] names
    services. Part i is expert i, or what is left of it where `experts` [parts] names the experts of
    all parts: those beyond are further parts of experts that are split.
    """

    parts: Indices
    owners: Indices
    experts: Words | None = None


def assign(
    experts: Indices,
    owners: Indices,
    choices: Choices,
    paces: Sequence[Pace],
    now: int | None = None,
) -> Assigned:
    """Choose for the experts of `owners` [experts] that are SEVERAL's and have pairs; those without
    are nobody's.

    `experts` [pairs] is flat, with DROPPED for a pair that is not computed. What was sent already
    and what must be computed by one service counts first. An expert goes where it is expected to be
    done first; where the services' costs of an expert and of a pair are known apart its pairs may
    also be split over several. `now` is nanoseconds of the monotonic clock.
    """
    counts = np.bincount(experts + 1, minlength=1)[1:]  # DROPPED pairs are not counted
    with_pairs = counts.nonzero()[0]
    sizes, found = counts[with_pairs], owners[with_pairs]
    # SEVERAL is below, and experts without pairs are computed nowhere.
    assigned = Assigned(experts, np.maximum(owners, NOBODY))
    is_open = found == SEVERAL
    open_experts = with_pairs[is_open].tolist()
    if not open_experts:
        return assigned
    is_owned = found >= 0
    owned_experts = np.bincount(found[is_owned], minlength=len(paces)).tolist()
    owned_pairs = np.bincount(found[is_owned], sizes[is_owned], minlength=len(paces)).tolist()
    estimates, is_fitted = _estimates(paces, time.perf_counter_ns() if now is None else now)
    if is_fitted:
        estimates = _of_one_shape(
            estimates, len(sizes) / len(paces), float(sizes.sum()) / len(paces)
        )
    owned = zip(owned_experts, owned_pairs, strict=True)
    busy = [_busy_nanos(*each) for each in zip(paces, estimates, owned, strict=True)]
    # One that takes no time at all would be given everything.
    speeds = Speeds(
        [estimate.expert for estimate in estimates],
        [max(1.0, estimate.pair) for estimate in estimates],
    )
    open_sizes, hosts = sizes[is_open].tolist(), [choices[expert] for expert in open_experts]
    if is_fitted:
        until = max(
            (nanos for nanos, num in zip(busy, owned_experts, strict=True) if num), default=0.0
        )
        _share_out(
            assigned, open_experts, assign_split(open_sizes, hosts, busy, speeds, until_nanos=until)
        )
    else:
        assigned.owners[open_experts] = assign_whole(open_sizes, hosts, busy, speeds)
    return assigned


def _estimates(paces: Sequence[Pace], now: int) -> tuple[list[Estimate], bool]:
    """Each service's, and whether all that are known are fitted; one that was never heard counts as
    their mean.

    Where none was heard pairs alone count.
    """
    known = [pace.estimate(now) for pace in paces if pace.is_known]
    if not known:
        return [Estimate(0.0, 0.0, 0.0, 1.0)] * len(paces), False
    is_fitted = all(one.is_fitted for one in known)
    if len(known) == len(paces):
        return known, is_fitted
    wire, frame, expert, pair, _ = (sum(column) / len(known) for column in zip(*known, strict=True))
    rest, mean = iter(known), Estimate(wire, frame, expert, pair)
    return [next(rest) if pace.is_known else mean for pace in paces], is_fitted


def _of_one_shape(estimates: Sequence[Estimate], experts: float, pairs: float) -> list[Estimate]:
    """Estimates that divide a frame's time alike, and agree with those given on a frame of so many
    experts and pairs.

    The division is hard to tell from frames that are much alike: a service whose pairs seem to cost
    nothing beside its frames would be given all of them. Within the dead band they are all the
    mean.
    """
    _, frame, expert, pair, _ = (
        sum(column) / len(estimates) for column in zip(*estimates, strict=True)
    )
    mean = max(frame + expert * experts + pair * pairs, 1.0)
    factors = [
        _apply_dead_band((one.frame + one.expert * experts + one.pair * pairs) / mean)
        for one in estimates
    ]
    return [
        Estimate(one.wire, frame * factor, expert * factor, pair * factor, is_fitted=True)
        for one, factor in zip(estimates, factors, strict=True)
    ]


def _apply_dead_band(factor: float) -> float:
    return max(1.0, factor / DEAD_BAND) if factor > 1 else min(1.0, factor * DEAD_BAND)


def _share_out(
    assigned: Assigned, experts: Sequence[int], parts: Sequence[Sequence[tuple[int, int]]]
) -> None:
    """Enter (service, number of pairs) for the parts of each expert, of which the first keeps the
    expert's number.
    """
    experts_of: list[int] = []
    owners_of: list[int] = []
    whole_parts, num_experts = assigned.parts, len(assigned.owners)
    for expert, ((owner, taken), *others) in zip(experts, parts, strict=True):
        assigned.owners[expert] = owner
        if others:
            if not experts_of:
                assigned.parts = whole_parts.copy()
            positions = np.flatnonzero(whole_parts == expert)
            for service, count in others:
                assigned.parts[positions[taken : taken + count]] = num_experts + len(experts_of)
                experts_of.append(expert)
                owners_of.append(service)
                taken += count
    if experts_of:
        assigned.owners = np.concatenate([assigned.owners, owners_of])
        assigned.experts = np.concatenate([np.arange(num_experts), experts_of]).astype(np.uint32)


def _busy_nanos(pace: Pace, estimate: Estimate, owned: tuple[int, float]) -> float:
    """Until when a service is busy with what was sent already and what it alone computes."""
    num_experts, num_pairs = owned
    computing = num_experts * estimate.expert + num_pairs * estimate.pair
    return estimate.wire + pace.waiting_nanos(estimate) + estimate.frame + computing
