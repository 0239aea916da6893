"""Counts what the gate sends to each expert, for a while back and in bounded memory."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.router.arrays import Indices
from services.router.load.load import ExpertLoad

NUM_BUCKETS = 8
# Notes are kept as they came and counted together: at the latest when there are so many, or so many
# pairs in them.
MAX_NOTES = 64
MAX_NOTED_PAIRS = 1 << 16
KINDS = 2  # of steps: those of decode alone, and those that prefill

Sums = npt.NDArray[Any]  # int64 while counting, which is faster and exact; float64 where they fade


class LoadMonitor:
    """Notes every layer of every step, and tells the load in a mean step of late: over a window,
    and smoothed.

    The window is the last `window_steps` steps, rounded up to a multiple of NUM_BUCKETS, or up to
    an eighth fewer. Smoothed, a step weighs half as much as one that came so many later. Memory
    does not grow. To be used by one thread.
    """

    def __init__(self, num_layers: int, num_experts: int, window_steps: int) -> None:
        """Raises ValueError for a window of no steps."""
        if window_steps < 1:
            raise ValueError(f"a window of {window_steps} steps is none")
        self._num_experts = num_experts
        self._notes_per_bucket = num_layers * math.ceil(window_steps / NUM_BUCKETS)
        self._window = [_Sums.zeros(num_layers, num_experts, np.int64) for _ in range(NUM_BUCKETS)]
        self._smoothed = _Sums.zeros(num_layers, num_experts, np.float64)
        self._bucket_decay = 0.5 ** (1 / NUM_BUCKETS)
        self._bucket = self._window[-1]  # the one that is being filled
        self._num_counted = 0  # notes in it
        self._notes: list[tuple[int, int, Indices]] = []  # not counted yet: kind, layer, experts
        self._num_noted_pairs = 0

    def note(self, layer_index: int, experts: Indices, *, is_decode: bool) -> None:
        """Count one layer of one step.

        `layer_index` counts layers with experts. `experts` [pairs] is flat and not written to any
        more; a negative one is not computed, and not counted. `is_decode` says that every row is a
        sequence's next token.
        """
        self._notes.append((int(is_decode), layer_index, experts))
        self._num_noted_pairs += len(experts)
        is_full = self._num_counted + len(self._notes) == self._notes_per_bucket
        if is_full or len(self._notes) == MAX_NOTES or self._num_noted_pairs >= MAX_NOTED_PAIRS:
            self._count()
        if is_full:
            self._next_bucket()

    def load(self, *, is_decode: bool | None = None) -> ExpertLoad:
        """The load in a mean step of the window: of all steps, or of one kind alone."""
        self._count()
        total = _Sums.zeros(*self._bucket.shape, np.int64)
        for bucket in self._window:
            total.add(bucket)
        return total.mean(is_decode)

    def smoothed_load(self, *, is_decode: bool | None = None) -> ExpertLoad:
        """The load in a mean step of all that were, where those of late count most."""
        self._count()
        total = _Sums.zeros(*self._bucket.shape, np.float64)
        total.add(self._smoothed)
        total.add(self._bucket)
        return total.mean(is_decode)

    def num_steps(self, *, is_decode: bool | None = None) -> int:
        """The steps in the window, as far as they have come: what can be made of them."""
        self._count()
        kinds = _kinds(is_decode)
        return int(sum(bucket.steps[kinds].sum(axis=0).max() for bucket in self._window))

    def _count(self) -> None:
        """Take what was noted into the bucket."""
        if not self._notes:
            return
        kinds, layers, experts = zip(*self._notes, strict=True)
        # A row of counts for each note, the first of them of the pairs that are not computed.
        width = self._num_experts + 1
        firsts = np.arange(1, len(experts) * width, width).repeat([len(one) for one in experts])
        counts = np.bincount(
            firsts + np.concatenate(experts), minlength=len(experts) * width
        ).reshape(-1, width)[:, 1:]
        notes = kinds, layers
        np.add.at(self._bucket.tokens, notes, counts)
        np.add.at(self._bucket.active, notes, counts > 0)
        np.add.at(self._bucket.steps, notes, 1)
        self._num_counted += len(experts)
        self._notes.clear()
        self._num_noted_pairs = 0

    def _next_bucket(self) -> None:
        self._smoothed.decay(self._bucket_decay)
        self._smoothed.add(self._bucket)
        self._window.append(self._window.pop(0))  # the oldest becomes the newest
        self._bucket = self._window[-1]
        self._bucket.clear()
        self._num_counted = 0


@dataclass(frozen=True)
class _Sums:
    """Pairs, steps with any, and steps: [kinds, layers, experts], and without experts the last."""

    tokens: Sums
    active: Sums
    steps: Sums

    @classmethod
    def zeros(cls, num_layers: int, num_experts: int, dtype: npt.DTypeLike) -> "_Sums":
        shape = (KINDS, num_layers, num_experts)
        return cls(np.zeros(shape, dtype), np.zeros(shape, dtype), np.zeros(shape[:2], dtype))

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and experts."""
        _, num_layers, num_experts = self.tokens.shape
        return num_layers, num_experts

    def add(self, other: "_Sums") -> None:
        for mine, others in zip(self._parts, other._parts, strict=True):
            mine += others

    def decay(self, factor: float) -> None:
        for mine in self._parts:
            mine *= factor

    def clear(self) -> None:
        for mine in self._parts:
            mine.fill(0)

    def mean(self, is_decode: bool | None) -> ExpertLoad:
        """By step; a layer that had none has no load."""
        kinds = _kinds(is_decode)
        steps = self.steps[kinds].sum(axis=0)[:, None]
        steps = np.where(steps > 0, steps, 1)
        return ExpertLoad(
            self.tokens[kinds].sum(axis=0) / steps, self.active[kinds].sum(axis=0) / steps
        )

    @property
    def _parts(self) -> tuple[Sums, Sums, Sums]:
        return self.tokens, self.active, self.steps


def _kinds(is_decode: bool | None) -> list[int]:
    return list(range(KINDS)) if is_decode is None else [int(is_decode)]
