"""Draws the training windows from the token streams in the proportions of the mix."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.tokenizer import END_ID

ALIGNED_SHARE = 0.5


class Windows:
    """An endless, seeded sequence of batches whose state can be saved and restored.

    Half of the windows begin at the start of a document, as a prompt does; the others anywhere.
    """

    def __init__(
        self, streams: dict[str, np.ndarray], *, window: int, batch: int, seed: int
    ) -> None:
        self._streams = streams
        self._window, self._batch = window, batch
        self._random = np.random.default_rng(seed)

    def draw(self, mix: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, each [batch, window], from the domains in the given proportions."""
        domains = list(mix)
        weights = np.array(list(mix.values()))
        rows = np.empty((self._batch, self._window + 1), np.int64)
        drawn = self._random.choice(len(domains), size=self._batch, p=weights / weights.sum())
        for row, domain in enumerate(drawn):
            stream = self._streams[domains[domain]]
            start = self._start(stream)
            rows[row] = stream[start : start + self._window + 1]
        tokens = torch.from_numpy(rows)
        return tokens[:, :-1], tokens[:, 1:]

    def _start(self, stream: np.ndarray) -> int:
        last = len(stream) - self._window - 1
        start = int(self._random.integers(0, last))
        if self._random.random() >= ALIGNED_SHARE:
            return start
        ends = np.flatnonzero(stream[start:last][: 8 * self._window] == END_ID)
        return start + int(ends[0]) + 1 if len(ends) else start

    def state(self) -> dict[str, Any]:
        return dict(self._random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        self._random.bit_generator.state = state


def read_streams(work: Path, domains: list[str], split: str) -> dict[str, np.ndarray]:
    """The token streams of one split, by domain."""
    return {
        domain: np.fromfile(work / f"{domain}.{split}.bin", dtype=np.uint16) for domain in domains
    }
