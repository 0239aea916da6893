"""How often a continuation has each of its tokens, for penalties that make them less likely."""

from array import array
from collections.abc import Iterable

import numpy as np
import torch


class Occurrences:
    """A sequence's penalties and its generated tokens, counted; as OpenAI's API describes them.

    `presence` is taken off the logit of a token that is there, `frequency` once for each time.
    """

    def __init__(self, presence: float, frequency: float, generated: Iterable[int]) -> None:
        self._presence = presence
        self._frequency = frequency
        self._places: dict[int, int] = {}
        self._ids, self._counts = array("q"), array("f")
        for token in generated:
            self.note(token)

    def note(self, token: int) -> None:
        """The continuation has this token once more."""
        place = self._places.setdefault(token, len(self._ids))
        if place == len(self._ids):
            self._ids.append(token)
            self._counts.append(0.0)
        self._counts[place] += 1.0

    def penalise(self, row: torch.Tensor) -> None:
        """Change the sequence's `row` of logits [vocabulary] in place, at the tokens
        that it has.
        """
        ids = torch.from_numpy(np.array(self._ids)).to(row.device)
        counts = torch.from_numpy(np.array(self._counts)).to(row.device)
        row[ids] -= counts * self._frequency + self._presence
