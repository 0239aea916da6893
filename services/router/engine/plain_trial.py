"""Whether two ways through a model are the same: tried on steps of random tokens and caches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from services.model.block_table import BLOCK_TOKENS
from services.model.kv_cache import KvCache, LayerShape
from services.model.packed_batch import PackedBatch, Segment
from services.router.engine.step import StepInputs

NUM_ROWS = (1, 3, 16)
MOST_BLOCKS = 2  # that a sequence has
CPU = torch.device("cpu")

Forward = Callable[[StepInputs], torch.Tensor]


@dataclass(frozen=True)
class PlainTrial:
    """Random steps of decoding for a model with so many tokens, whose layers store so much."""

    vocabulary: int
    shapes: Mapping[int, LayerShape]
    dtype: torch.dtype

    def agree(self, known: Forward, tried: Forward) -> bool:
        """Whether logits, and keys and values in the cache, have the same bits after both; not
        where the one that is tried fails on some model.
        """
        return all(self._agree_on(num_rows, known, tried) for num_rows in NUM_ROWS)

    def _agree_on(self, num_rows: int, known: Forward, tried: Forward) -> bool:
        expected = self._results(num_rows, known)
        try:
            found = self._results(num_rows, tried)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False  # modules of another shape take other arguments
        return all(torch.equal(*pair) for pair in zip(expected, found, strict=True))

    def _results(self, num_rows: int, forward: Forward) -> list[torch.Tensor]:
        inputs = self._inputs(num_rows)
        cached = [inputs.packed.cache.of_layer(layer) for layer in self.shapes]
        return [forward(inputs), *(part for pair in cached for part in pair)]

    def _inputs(self, num_rows: int) -> StepInputs:
        """A step in which most rows are drawn from; the same each time."""
        generator = torch.Generator().manual_seed(num_rows)
        most_keys = MOST_BLOCKS * BLOCK_TOKENS
        cache = KvCache(self.shapes, num_rows * most_keys, self.dtype, CPU)
        for layer in self.shapes:
            for part in cache.of_layer(layer):
                part.copy_(torch.randn(part.shape, generator=generator))
        positions = torch.randint(most_keys, (num_rows,), generator=generator)
        segments = [
            Segment(row, 1, position, row * most_keys)
            for row, position in enumerate(positions.tolist())
        ]
        return StepInputs(
            torch.randint(self.vocabulary, (num_rows,), generator=generator),
            positions,
            PackedBatch(cache, segments, CPU),
            None if num_rows == 1 else torch.arange(1, num_rows),
        )
