"""What attention has to know of a step's batch, in which chunks and single tokens of sequences lie
side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from services import kernels
from services.model.kv_cache import KvCache


class Segment(NamedTuple):
    """The tokens of one sequence in the batch: `num_tokens` of them from position `first_position`
    on.
    """

    first_token: int
    num_tokens: int
    first_position: int
    first_slot: int

    @property
    def num_keys(self) -> int:
        return self.first_position + self.num_tokens

    @property
    def tokens(self) -> slice:
        return slice(self.first_token, self.first_token + self.num_tokens)


@dataclass(frozen=True)
class VisibleKeys:
    """For each row the slots that it sees: `num_keys` [rows] of them from `first_slots` [rows] on;
    none for padding.
    """

    first_slots: npt.NDArray[np.int64]
    num_keys: npt.NDArray[np.int64]


@dataclass
class PackedBatch:
    """The segments of a step and where their keys and values lie.

    Rows past their tokens are padding. With `row_by_row` every query is computed by itself, so that
    its bits depend on its own keys alone. What is derived is made once and serves all layers.
    """

    cache: KvCache
    segments: Sequence[Segment]
    device: torch.device
    row_by_row: bool = False
    _masks: dict[tuple[int, int, int | None], torch.Tensor | None] = field(default_factory=dict)
    _visible: VisibleKeys | None = None
    _rows: tuple[object, kernels.CachedRows] | None = None

    def __post_init__(self) -> None:
        self._table = np.array(self.segments, dtype=np.int64)  # [segments, fields of a segment]
        firsts, counts, starts, first_slots = self._table.T
        self.num_tokens = int(counts.sum())
        places = np.arange(self.num_tokens)
        # Of each token its position in its sequence, and the slot that its keys and values go to.
        self.positions = np.repeat(starts - firsts, counts) + places
        self.slots = np.repeat(first_slots + starts - firsts, counts) + places

    @cached_property
    def chunks(self) -> list[Segment]:
        """The segments of several tokens that are attended together, where kernels attend the
        others: those that see many keys.
        """
        if self.row_by_row:
            return []
        most = kernels.most_chunk_keys(self.cache.dtype)
        return [
            segment
            for segment in self.segments
            if segment.num_tokens > 1 and segment.num_keys > most
        ]

    @cached_property
    def rows(self) -> list[Segment]:
        """Every token as a segment of its own."""
        return [
            Segment(segment.first_token + row, 1, segment.first_position + row, segment.first_slot)
            for segment in self.segments
            for row in range(segment.num_tokens)
        ]

    @cached_property
    def written(self) -> torch.Tensor | slice:
        """`slots` on the device, as a slice where they are neighbours, which is quicker to write
        to.
        """
        if len(self.segments) != 1:
            return torch.from_numpy(self.slots).to(self.device)
        segment = self.segments[0]
        return slice(
            segment.first_slot + segment.first_position, segment.first_slot + segment.num_keys
        )

    def visible_keys(self, num_rows: int) -> VisibleKeys:
        """What each of `num_rows` rows sees, of the rows that are attended by themselves; the
        others see nothing.
        """
        if self._visible is None:
            first_slots, num_keys = np.zeros((2, num_rows), dtype=np.int64)
            first_slots[: self.num_tokens] = self.slots - self.positions
            num_keys[: self.num_tokens] = self.positions + 1
            for chunk in self.chunks:
                num_keys[chunk.tokens] = 0
            self._visible = VisibleKeys(first_slots, num_keys)
        return self._visible

    @cached_property
    def rows_are_alone(self) -> bool:
        """Whether every row is attended by itself."""
        return not self.chunks

    def for_kernels(self, angles: tuple[torch.Tensor, torch.Tensor]) -> kernels.CachedRows:
        """The rows as `kernels.AttentionLayer` takes them, with cosines and sines [1, rows, width].

        Where `rows_are_alone`, and on the CPU.
        """
        if self._rows is None or self._rows[0] is not angles:
            cosines, sines = angles[0][0], angles[1][0]
            visible = self.visible_keys(len(cosines))
            rows = kernels.CachedRows(
                visible.first_slots, visible.num_keys, self.slots, cosines, sines
            )
            self._rows = angles, rows
        return self._rows[1]

    def mask(
        self, segment: Segment, window: int | None, device: torch.device
    ) -> torch.Tensor | None:
        """Which keys each query of the segment may see, [queries, keys], or None for all."""
        key = (segment.first_position, segment.num_tokens, window)
        if key not in self._masks:
            self._masks[key] = _causal_mask(segment, window, device)
        return self._masks[key]


def _causal_mask(segment: Segment, window: int | None, device: torch.device) -> torch.Tensor | None:
    if segment.num_tokens == 1 and (window is None or segment.num_keys <= window):
        return None
    keys = torch.arange(segment.num_keys, device=device)
    queries = torch.arange(segment.first_position, segment.num_keys, device=device)[:, None]
    seen = keys <= queries
    return seen if window is None else seen & (keys > queries - window)
