"""How a layer's (token, expert) pairs fall apart into frames: pure arithmetic on indices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from services import kernels
from services.router.arrays import Indices
from services.wire.received import Words

NOBODY = -1  # in the place of a service: no one computes the expert
DROPPED = -1  # in the place of an expert: its pair is not computed

UNLIMITED = 1 << 40  # pairs, for a frame that is sent to nobody
Most = int | Sequence[int]  # for every service, or by service


@dataclass(slots=True)
class FramePairs:
    """The pairs that one service computes in one frame.

    `positions` are indices into the flat [tokens x k] pairs, ascending; `rows` the tokens they
    belong to, each once; `pair_rows` the index into `rows` of each pair; `experts` its expert, of
    which `num_experts` are distinct.
    """

    service: int
    positions: Indices
    rows: Indices
    pair_rows: Words
    experts: Words
    num_experts: int

    def each_expert(self) -> list[int]:
        """The experts, each once."""
        return np.unique(self.experts).tolist()  # type: ignore[no-any-return]


def pairs_by_frame(
    experts: Indices, owners: Indices, top_k: int, most: Most, *, counts_rows: bool = False
) -> list[FramePairs]:
    """Split the pairs by the service that owns their expert, into frames of at most `most` pairs
    (and at least one row), or with `counts_rows` at most so many rows.

    `experts` [tokens x k] is flat, with DROPPED for a pair that is not computed; `owners` [experts]
    names a service or NOBODY. Pairs whose expert nobody owns come back as frames of the service
    NOBODY.
    """
    if not len(experts):
        return []
    frames = _one_each(experts, owners, top_k, most, counts_rows) if kernels.AVAILABLE else None
    return _several_each(experts, owners, top_k, most, counts_rows) if frames is None else frames


def _one_each(
    experts: Indices, owners: Indices, top_k: int, most: Most, counts_rows: bool
) -> list[FramePairs] | None:
    """One frame for each service, if none would be too large."""
    services, positions, rows, pair_rows, pair_experts = kernels.scatter(experts, owners, top_k)
    frames = []
    for service, first, num_pairs, num_rows, num_experts in services:
        if (num_rows if counts_rows else num_pairs) > _most_of(most, service):
            return None
        pairs, unique_rows = slice(first, first + num_pairs), rows[first : first + num_rows]
        frames.append(
            FramePairs(
                service,
                positions[pairs],
                unique_rows,
                pair_rows[pairs],
                pair_experts[pairs],
                num_experts,
            )
        )
    return frames


def _several_each(
    experts: Indices, owners: Indices, top_k: int, most: Most, counts_rows: bool
) -> list[FramePairs]:
    services = owners[experts]
    services[experts < 0] = NOBODY - 1
    # Everything is worked out once for all services; a frame has a stretch of it.
    order = services.argsort(kind="stable")
    services, experts, rows = services[order], experts[order], order // top_k
    changes = (services[1:] != services[:-1]).nonzero()[0]
    is_first = np.ones(len(rows), dtype=bool)  # of its row, in its service's stretch
    np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
    is_first[changes + 1] = True
    ranks = is_first.cumsum()
    ends = [*(changes + 1).tolist(), len(order)]
    frames = []
    for first, end in zip([0, *ends], ends, strict=False):
        service = int(services[first])
        if service < NOBODY:
            continue
        counted = ranks if counts_rows else None
        for start, stop in _cuts(rows, counted, first, end, _most_of(most, service)):
            pair_rows = ranks[start:stop] - ranks[start]
            unique_rows = rows[start:stop]
            if pair_rows[-1] + 1 < stop - start:
                unique_rows = unique_rows[is_first[start:stop]]
            words, frame_experts = (
                pair_rows.astype(np.uint32),
                experts[start:stop].astype(np.uint32),
            )
            num_experts = int(np.count_nonzero(np.bincount(frame_experts)))
            frames.append(
                FramePairs(
                    service, order[start:stop], unique_rows, words, frame_experts, num_experts
                )
            )
    return frames


def _most_of(most: Most, service: int) -> int:
    if isinstance(most, int):
        return most
    return UNLIMITED if service == NOBODY else most[service]


def _cuts(
    rows: Indices, ranks: Indices | None, first: int, end: int, most: int
) -> Iterator[tuple[int, int]]:
    while first < end:
        last = first + most
        if ranks is not None:
            last = first + int(np.searchsorted(ranks[first:end], ranks[first] + most))
        elif last < end:
            # Cut between rows, so that no row is sent twice; a row's pairs stay together even where
            # they exceed the limit.
            stretch, cut = rows[first:end], rows[last]
            last = first + int(np.searchsorted(stretch, cut, side="left"))
            if last <= first:
                last = first + int(np.searchsorted(stretch, stretch[0], side="right"))
        last = min(last, end)
        yield first, last
        first = last
