"""The tokens that a sequence has already, which a repetition penalty makes less likely to come
again.
"""

from array import array
from collections.abc import Iterable

import numpy as np
import torch


class Repetition:
    """A sequence's penalty and its tokens, each once; as `RepetitionPenaltyLogitsProcessor` of
    transformers.
    """

    def __init__(self, penalty: float, prompt: Iterable[int]) -> None:
        self._penalty = penalty
        self._known = set(prompt)
        self._ids = array("q", self._known)

    def note(self, token: int) -> None:
        """The sequence has this token from now on."""
        if token not in self._known:
            self._known.add(token)
            self._ids.append(token)

    def penalise(self, row: torch.Tensor) -> None:
        """Change the sequence's `row` of logits [vocabulary] in place, at the tokens
        that it has.
        """
        ids = torch.from_numpy(np.array(self._ids)).to(row.device)
        values = row[ids]
        penalised = torch.where(values < 0, values * self._penalty, values / self._penalty)
        # A penalty next to zero makes no infinity, beside which nothing could be told apart.
        row[ids] = penalised.nan_to_num_()
