"""Writes down the routing of live traffic as it passes, up to a limit."""

from dataclasses import dataclass

import numpy as np

from services.router.arrays import Indices
from services.router.load.recording import ExpertIds, Recording


class RoutingRecorder:
    """Notes steps layer by layer and hands over those that are complete.

    The steps of different lanes may alternate; a lane has one at a time, from its layer 0 to its
    last. Steps that would take it beyond `max_bytes` are missed and counted, until what is there
    has been taken.
    """

    def __init__(self, num_layers: int, num_experts: int, top_k: int, max_bytes: int) -> None:
        self._num_layers, self._num_experts, self._top_k = num_layers, num_experts, top_k
        self._max_bytes = max_bytes
        self._begun: dict[int, _Begun] = {}  # by lane
        self._complete: list[_Begun] = []
        self._num_bytes = 0
        self._num_missed = 0

    @property
    def num_steps(self) -> int:
        """Complete steps, which `take` would give."""
        return len(self._complete)

    @property
    def num_bytes(self) -> int:
        """The bytes of those steps."""
        return self._num_bytes

    @property
    def num_missed(self) -> int:
        """Steps that found no room, or were begun again before they were complete."""
        return self._num_missed

    def note(self, lane: int, layer_index: int, experts: Indices, *, is_decode: bool) -> None:
        """Note one layer of a lane's step; copies `experts` [rows x k], where a negative one is not
        computed.
        """
        if layer_index == 0:
            self._num_missed += lane in self._begun
            self._begun[lane] = _Begun([], is_decode)
        begun = self._begun.get(lane)
        # A recorder is put into a router that runs: what began without it is not a step.
        if begun is None or len(begun.layers) != layer_index:
            return
        # Negative ids wrap to DROPPED_ID.
        begun.layers.append(experts.astype(np.uint16).reshape(-1, self._top_k))
        if len(begun.layers) == self._num_layers:
            self._finish(self._begun.pop(lane))

    def take(self, topic: str) -> Recording:
        """What is complete, in the order of completion; noting goes on with room again."""
        steps, self._complete, self._num_bytes = self._complete, [], 0
        return Recording(
            topic,
            self._num_experts,
            np.concatenate([step.experts() for step in steps], axis=1)
            if steps
            else self._no_experts(),
            np.array([len(step.layers[0]) for step in steps], dtype=np.int64),
            np.array([step.is_decode for step in steps], dtype=bool),
        )

    def _finish(self, step: "_Begun") -> None:
        if self._num_bytes + step.num_bytes > self._max_bytes:
            self._num_missed += 1
            return
        self._num_bytes += step.num_bytes
        self._complete.append(step)

    def _no_experts(self) -> ExpertIds:
        return np.empty((self._num_layers, 0, self._top_k), dtype=np.uint16)


@dataclass(frozen=True)
class _Begun:
    """A step as far as it has come: each layer's [rows, k]."""

    layers: list[ExpertIds]
    is_decode: bool

    @property
    def num_bytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    def experts(self) -> ExpertIds:
        return np.stack(self.layers)
