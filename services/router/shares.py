"""How a layer's (token, expert) pairs fall apart into frames: pure arithmetic on indices."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
NOBODY = -1


@dataclass(frozen=True)
class Share:
    """The pairs that one service computes in one frame.

    `positions` are indices into the flat [tokens x k] pairs, ascending; `rows` the tokens they belong to, each once;
    `pair_rows` the index into `rows` of each pair; `experts` its expert.
    """

    service: int
    positions: Indices
    rows: Indices
    pair_rows: Indices
    experts: Indices


def shares_of(experts: Indices, owners: Indices, top_k: int, max_pairs: int) -> list[Share]:
    """Split the pairs by the service that owns their expert, into frames of at most `max_pairs` pairs (and at least
    one row).

    `experts` [tokens x k] is flat, a negative one stands for a pair that is not computed; `owners` [experts] names a
    service or NOBODY. Pairs whose expert nobody owns come back as a share of the service NOBODY.
    """
    services = np.where(experts >= 0, owners[experts], NOBODY - 1)
    return [
        share
        for service in np.unique(services).tolist()
        if service >= NOBODY
        for share in _frames(service, np.flatnonzero(services == service), experts, top_k, max_pairs)
    ]


def _frames(service: int, positions: Indices, experts: Indices, top_k: int, max_pairs: int) -> Iterator[Share]:
    rows = positions // top_k
    first = 0
    while first < len(positions):
        last = first + max_pairs
        if last < len(positions):
            # Cut between rows, so that no row is sent twice; a row's pairs stay together even where they exceed the
            # limit.
            last = int(np.searchsorted(rows, rows[last], side="left"))
            if last <= first:
                last = int(np.searchsorted(rows, rows[first], side="right"))
        frame = positions[first:last]
        unique_rows, pair_rows = np.unique(rows[first:last], return_inverse=True)
        yield Share(service, frame, unique_rows, pair_rows, experts[frame])
        first = last
