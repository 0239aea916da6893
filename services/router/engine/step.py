"""One step of one lane: the batch as tensors, and what happens to it on its way through
the layers.
"""

from collections.abc import Sequence as Sequenced
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from services.model.kv_cache import KvCache
from services.model.likelihood import Likelihood
from services.model.packed_batch import PackedBatch, Segment
from services.model.tiles import padded_to_tiles
from services.router.engine.scheduler import ScheduledTokens
from services.router.engine.sequence import EndReason, Sequence
from services.router.engine.spans import NO_SPANS, StepSpans
from services.router.times.receipt import StepClock
from services.wire.errors import ServingError


@dataclass(frozen=True)
class StepInputs:
    """What the forward is called with:

    Ids and positions [tokens], padded where the mode says so, and the rows whose logits are read,
    None for all.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    packed: PackedBatch
    read_rows: torch.Tensor | None


@dataclass
class Step:
    """Which sequences a forward serves, row by row, its clock, and the sequences that could not be
    served. It is alone when no other lane had anything to compute as it began.
    """

    lane: int
    batch: Sequenced[ScheduledTokens]
    clock: StepClock = field(default_factory=StepClock)
    spans: StepSpans = NO_SPANS
    routed: dict[int, torch.Tensor] = field(default_factory=dict)
    is_alone: bool = True
    # Logits of `scored_rows`, and the likelihoods of drawn tokens by their sequences' numbers.
    scored: torch.Tensor | None = None
    likelihoods: dict[int, Likelihood] = field(default_factory=dict)

    @cached_property
    def num_tokens(self) -> int:
        return sum(work.num_tokens for work in self.batch)

    @cached_property
    def row_sequences(self) -> npt.NDArray[np.int64]:
        """For each row the index of its work in `batch`."""
        return np.repeat(np.arange(len(self.batch)), [work.num_tokens for work in self.batch])

    @cached_property
    def prefilling(self) -> list[bool]:
        """For each work whether the prompt was not all computed yet when the step began, which is
        when this is first asked for.
        """
        return [work.sequence.is_prefilling for work in self.batch]

    @cached_property
    def is_decode(self) -> bool:
        """Whether every row is the next token of a sequence whose prompt is computed."""
        return not any(self.prefilling)

    @cached_property
    def _draws(self) -> list[bool]:
        return [work.draws for work in self.batch]

    @cached_property
    def drawing(self) -> list[Sequence]:
        """Sequences whose next token is drawn from this step, in the order of `last_rows`."""
        return [work.sequence for work, draws in zip(self.batch, self._draws, strict=True) if draws]

    @cached_property
    def last_rows(self) -> npt.NDArray[np.int64]:
        """The last row of each drawing sequence."""
        return (np.cumsum([work.num_tokens for work in self.batch]) - 1)[self._draws]

    @cached_property
    def num_scored(self) -> list[int]:
        """Of each work's first rows, how many are scored."""
        return [min(work.num_tokens, work.sequence.num_to_score) for work in self.batch]

    @cached_property
    def scored_rows(self) -> npt.NDArray[np.int64]:
        """The rows that say how likely the prompt's next token was, where that is asked for."""
        rows: list[int] = []
        start = 0
        for work, num_scored in zip(self.batch, self.num_scored, strict=True):
            rows += range(start, start + num_scored)
            start += work.num_tokens
        return np.array(rows, dtype=np.int64)

    @cached_property
    def read_rows(self) -> npt.NDArray[np.int64]:
        """The rows whose logits are read: those drawn from, then those scored."""
        if not any(self.num_scored):
            return self.last_rows
        return np.concatenate([self.last_rows, self.scored_rows])

    @cached_property
    def wants_routed_experts(self) -> bool:
        return any(sequence.order.return_routed_experts for sequence in self.drawing)

    def sequences_of(self, rows: npt.NDArray[np.int64]) -> list[Sequence]:
        """The sequences that these rows belong to, each once."""
        return [self.batch[index].sequence for index in np.unique(self.row_sequences[rows])]

    def goes_on(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """For each of these rows whether its sequence has not ended."""
        goes_on = np.array([work.sequence.ending is None for work in self.batch])
        return goes_on[self.row_sequences[rows]]

    @cached_property
    def row_requests(self) -> npt.NDArray[np.int64]:
        """For each row the number of its sequence, whose rows are neighbours."""
        numbers = np.array([work.sequence.number for work in self.batch], dtype=np.int64)
        return numbers[self.row_sequences]

    def requests_of(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """The numbers of the sequences that these rows, each given once, belong to, each once."""
        requests = self.row_requests[rows]
        if len(self.batch) < self.num_tokens:
            requests = np.unique(requests)
        return requests.tolist()  # type: ignore[no-any-return]

    def count_computed(self) -> None:
        """All of it is computed: its sequences go on from there."""
        for work in self.batch:
            work.sequence.num_computed += work.num_tokens
            work.sequence.goes_alone = False

    def fail(self, rows: npt.NDArray[np.int64], error: ServingError) -> None:
        """End the sequences of these rows; the step goes on for the others."""
        for sequence in self.sequences_of(rows):
            sequence.end(EndReason.ERROR, error)

    def inputs(self, cache: KvCache, device: torch.device, rows_per_tile: int | None) -> StepInputs:
        """The batch as tensors. With `rows_per_tile` it is padded to whole tiles and attention goes
        row by row.
        """
        ids: list[int] = []
        segments: list[Segment] = []
        for work in self.batch:
            sequence, start = work.sequence, work.sequence.num_computed
            assert sequence.table is not None, "a sequence in a step has its reservation"
            segments.append(Segment(len(ids), work.num_tokens, start, sequence.table.first_slot))
            ids += sequence.tokens(start, work.num_tokens)
        packed = PackedBatch(cache, segments, device, row_by_row=rows_per_tile is not None)
        num_tokens = len(ids)
        num_rows = padded_to_tiles(num_tokens, rows_per_tile) if rows_per_tile else num_tokens
        token_ids, positions = np.zeros((2, num_rows), dtype=np.int64)
        token_ids[:num_tokens] = ids
        positions[:num_tokens] = packed.positions
        all_draw = len(self.drawing) == num_rows  # and none is scored
        return StepInputs(
            torch.from_numpy(token_ids).to(device),
            torch.from_numpy(positions).to(device),
            packed,
            None if all_draw else torch.from_numpy(self.read_rows).to(device),
        )
