"""What the services host, laid out as the placement that frames are sent by."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.router.dispatch.placement import (
    MAX_FRAME_BYTES,
    NOTHING_AMISS,
    Placement,
    Replicas,
    Unhosted,
)
from services.router.hosting.contents import Contents
from services.router.peers.peer import ExpertPeer
from services.wire.expert_key import ExpertKey


@dataclass(frozen=True)
class LaidOut:
    """A placement, and how well it covers the experts.

    `counts` has for every layer the usable services that each expert is ready on, int64 [layers,
    experts].
    """

    placement: Placement
    ready_by_service: Mapping[str, int]
    counts: npt.NDArray[np.int64]

    @property
    def min_live_replicas(self) -> int:
        """Usable services that the least replicated expert is ready on."""
        return int(self.counts.min(initial=len(self.ready_by_service)))

    def num_below(self, coverage: int) -> int:
        """Experts that are ready on fewer services than that."""
        return int((self.counts < coverage).sum())


@dataclass(frozen=True)
class _Rows:
    ready: Mapping[
        int, npt.NDArray[np.bool_]
    ]  # what they were made from: a peer makes it anew with each change
    refused: Set[ExpertKey]
    rows: Replicas  # [layers, experts]


class HostingLayout:
    """Makes placements of the peers' hosting; what a peer that has not changed hosts is not looked
    at again.

    What `contents` refuses is no replica, and `on_conflict` is told of it in words, once for each
    change of what is refused.
    """

    def __init__(
        self,
        moe_layers: Sequence[int],
        num_experts: int,
        contents: Contents,
        on_conflict: Callable[[str, Set[ExpertKey]], None],
    ) -> None:
        self._layer_at = {layer: index for index, layer in enumerate(moe_layers)}
        self._num_experts = num_experts
        self._on_conflict = on_conflict
        self._contents = contents
        self._rows: dict[str, _Rows] = {}

    def lay_out(
        self,
        peers: Sequence[ExpertPeer],
        unhosted: Callable[[Sequence[ExpertKey]], Unhosted] = lambda _: NOTHING_AMISS,
    ) -> LaidOut:
        """The placement of what is ready now on those that can be used, with what is known of the
        experts that are ready on none.
        """
        usable = {peer.address for peer in peers if peer.is_usable}
        self._rows = {address: rows for address, rows in self._rows.items() if address in usable}
        self._contents.observe([peer for peer in peers if peer.address in usable])
        none = np.zeros((len(self._layer_at), self._num_experts), dtype=bool)
        rows = [self._rows_of(peer) if peer.address in usable else none for peer in peers]
        # [layers, services, experts]
        stacked = (
            np.stack(rows, axis=1)
            if rows
            else np.zeros((len(none), 0, self._num_experts), dtype=bool)
        )
        counts = stacked.sum(axis=1)
        return LaidOut(
            Placement(
                tuple(peers),
                {layer: stacked[index] for layer, index in self._layer_at.items()},
                tuple(map(_frame_limit, peers)),
                unhosted(self._unready(counts)),
                {peer.address: peer.ready for peer in peers if peer.is_being_tried},
            ),
            {peer.address: int(ready.sum()) for peer, ready in zip(peers, rows, strict=True)},
            counts,
        )

    def _unready(self, counts: npt.NDArray[np.int64]) -> list[ExpertKey]:
        layers = list(self._layer_at)
        return [
            ExpertKey(layers[index], expert) for index, expert in np.argwhere(counts == 0).tolist()
        ]

    def _rows_of(self, peer: ExpertPeer) -> Replicas:
        ready, known = peer.ready, self._rows.get(peer.address)
        refused = self._contents.refused(peer)
        if known is not None and known.ready is ready and known.refused == refused:
            return known.rows
        rows = np.zeros((len(self._layer_at), self._num_experts), dtype=bool)
        for layer, is_ready in ready.items():
            rows[self._layer_at[layer]] = is_ready
        for layer, expert in refused:
            rows[self._layer_at[layer], expert] = False
        reason = self._contents.refusal(peer)
        if reason is not None and (known is None or known.refused != refused):
            self._on_conflict(reason, refused)
        self._rows[peer.address] = _Rows(ready, refused, rows)
        return rows


def _frame_limit(peer: ExpertPeer) -> int:
    return MAX_FRAME_BYTES if peer.description is None else peer.description.max_frame_bytes
