"""How long a plan takes for a large model: CPU time, from an even placement and again when the load
has changed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.placement.cluster import READ, Cluster, Shape
from services.router.load.load import ExpertLoad

# Of DeepSeek-V3 in layers and experts, with a quarter more slots than experts.
LARGE = Shape(num_layers=61, num_experts=256, num_services=64, num_slots=320)
NUM_ROWS, TOP_K = 512, 8  # of a step
SKEW = (
    0.6  # of the popularity's logarithm: the hottest expert of a layer has some five times the mean
)
SEED = 20260101
FROM_EVEN, UNCHANGED, CHANGED = (
    "an even placement",
    "its own plan, load unchanged",
    "its own plan, other load",
)


@dataclass(frozen=True)
class Timing:
    """Seconds of CPU time that a plan took, and the experts that it loads."""

    seconds: float
    num_loads: int


def timings(
    strategy: str, num_rounds: int, after_round: Callable[[], None]
) -> dict[str, list[Timing]]:
    """Plans from an even placement, again from what is hosted then, and for a load that has nothing
    in common.
    """
    found: dict[str, list[Timing]] = {FROM_EVEN: [], UNCHANGED: [], CHANGED: []}
    start = Cluster.even(LARGE, READ)
    load, other = skewed_load(LARGE, SEED), skewed_load(LARGE, SEED + 1)
    planned = start.planned(strategy, load).cluster
    for _ in range(num_rounds):
        found[FROM_EVEN].append(_timed(start, strategy, load))
        found[UNCHANGED].append(_timed(planned, strategy, load))
        found[CHANGED].append(_timed(planned, strategy, other))
        after_round()
    return found


def skewed_load(shape: Shape, seed: int) -> ExpertLoad:
    """Experts whose popularity is lognormal, each layer's by itself."""
    random = np.random.default_rng(seed)
    popularity = random.lognormal(0.0, SKEW, (shape.num_layers, shape.num_experts))
    tokens = NUM_ROWS * TOP_K * popularity / popularity.sum(axis=1, keepdims=True)
    return ExpertLoad(tokens, 1 - np.exp(-tokens))  # as if the pairs of a step were Poisson's


def _timed(cluster: Cluster, strategy: str, load: ExpertLoad) -> Timing:
    began = time.process_time()
    made = cluster.plan(strategy, load)
    return Timing(time.process_time() - began, len(made.moves))
