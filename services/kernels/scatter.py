"""A layer's pairs by the service that computes them, in one call."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.kernels.level import _native


class Scattered(NamedTuple):
    """The pairs of all services, one service's after the other's.

    Each of `services` is (service, first, pairs, rows, experts): where its pairs begin, how many
    they are, and on how many rows and of how many experts. `positions` [pairs] are ascending within
    a service, `pair_rows` the index of a pair's row among its service's, `pair_experts` its expert.
    A service's `rows`, each once, begin where its pairs do.
    """

    services: list[tuple[int, int, int, int, int]]
    positions: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    pair_rows: npt.NDArray[np.uint32]
    pair_experts: npt.NDArray[np.uint32]


def scatter(experts: npt.NDArray[np.int64], owners: npt.NDArray[np.int64], top_k: int) -> Scattered:
    """Sort the flat [tokens x k] pairs by the owner of their expert; without negative ones, which
    are not computed.

    `owners` [experts] names a service, or -1 for nobody; nobody's pairs come first. Raises
    IndexError for an expert or owner that is none, ValueError for arrays of another kind or a
    `top_k` below 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k {top_k} must be above 0")
    num_pairs = len(experts)
    results = np.empty(3 * num_pairs, dtype=np.int64)
    services = _native.scatter(
        experts=experts,
        owners=owners,
        results=results,
        num_pairs=num_pairs,
        num_experts=len(owners),
        top_k=top_k,
    )
    words = results[2 * num_pairs :].view(np.uint32)
    return Scattered(
        services,
        results[:num_pairs],
        results[num_pairs : 2 * num_pairs],
        words[:num_pairs],
        words[num_pairs:],
    )
