"""Recorded routing played to a placement: who would have computed what, and how even that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.placement.cluster import Cluster, Prices, Shape
from bench.placement.traffic import Traffic
from services.router.dispatch.split import Speeds, assign_split
from services.router.load.imbalance import active_excess, imbalance
from services.router.load.recording import Recording

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ReplayFigures:
    """Means over steps and layers.

    `imbalance` is of pairs; `active_excess` the hottest service's distinct experts ÷ the fewest it
    could have; `time_excess` the time until the last service is done ÷ that of work shared out
    evenly, less 1.
    """

    imbalance: float
    active_excess: float
    time_excess: float


@dataclass(frozen=True)
class Outcome:
    """One plan, judged: what it loads, and the replicas that there are then."""

    figures: ReplayFigures
    num_loads: int
    num_replicas: int


@dataclass(frozen=True)
class Replayed:
    """A strategy on a shape at some prices: the outcome of each case of each traffic, which are
    plans of their own.
    """

    shape: Shape
    prices: Prices
    strategy: str
    outcomes: Mapping[Traffic, Sequence[Outcome]]


def replayed(start: Cluster, strategy: str, traffics: Sequence[Traffic]) -> Replayed:
    """Plan from `start` for each case, and judge."""
    outcomes = {
        traffic: [_outcome(start, strategy, *case) for case in traffic.cases]
        for traffic in traffics
    }
    return Replayed(start.shape, start.prices, strategy, outcomes)


def _outcome(start: Cluster, strategy: str, seen: Recording, unseen: Recording) -> Outcome:
    planned = start.planned(strategy, seen.load())
    return Outcome(judge(planned.cluster, unseen), planned.num_loads, planned.cluster.num_replicas)


def judge(cluster: Cluster, recording: Recording) -> ReplayFigures:
    """How a placement would have served the recording, each step by itself."""
    pairs = computed(cluster, recording.counts())
    nanos = _nanos(cluster, pairs)
    return ReplayFigures(
        float(imbalance(pairs.sum(axis=-1)).mean()),
        float(active_excess(pairs).mean()),
        float((nanos.max(axis=-1) / _even_nanos(cluster, pairs) - 1).mean()),
    )


def computed(cluster: Cluster, counts: Counts) -> Counts:
    """The pairs that each service computes of `counts` [steps, layers, experts]: [steps, layers,
    services, experts].

    A layer's pairs are split as a router does it that knows the services' costs, with nothing else
    under way.
    """
    hosting = cluster.hosting
    idle = [0.0] * len(cluster.hosts)
    speeds = Speeds(cluster.costs.expert_nanos.tolist(), cluster.costs.pair_nanos.tolist())
    pairs = np.zeros((*counts.shape[:2], *hosting.shape[1:]), dtype=np.int64)
    for layer in range(counts.shape[1]):
        hosts = [np.flatnonzero(column).tolist() for column in hosting[layer].T]
        for step, sizes in enumerate(counts[:, layer]):
            active = np.flatnonzero(sizes).tolist()
            parts = assign_split(sizes[active].tolist(), [hosts[it] for it in active], idle, speeds)
            for it, part in zip(active, parts, strict=True):
                for service, size in part:
                    pairs[step, layer, service, it] += size
    return pairs


def _nanos(cluster: Cluster, pairs: Counts) -> npt.NDArray[np.float64]:
    """Of each service: [steps, layers, services]. One that computes nothing takes no time."""
    costs = cluster.costs
    active = np.count_nonzero(pairs, axis=-1)
    nanos: Any = (
        costs.fixed_nanos * (active > 0)
        + costs.expert_nanos * active
        + costs.pair_nanos * pairs.sum(axis=-1)
    )
    return np.asarray(nanos, dtype=np.float64)


def _even_nanos(cluster: Cluster, pairs: Counts) -> npt.NDArray[np.float64]:
    """Of work that falls into as many equal parts as there are services, each expert read once:
    [steps, layers].
    """
    costs = cluster.costs
    num_active = np.count_nonzero(pairs.any(axis=-2), axis=-1)
    num_pairs = pairs.sum(axis=(-1, -2))
    work = costs.expert_nanos.mean() * num_active + costs.pair_nanos.mean() * num_pairs
    return np.asarray(costs.fixed_nanos.mean() + work / len(cluster.hosts), dtype=np.float64)
