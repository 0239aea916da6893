"""What a request has done to its logits before the temperature: biases, penalties, and tokens that
are not to be drawn.
"""

from collections.abc import Collection, Sequence

import torch

from services.model.occurrences import Occurrences
from services.model.repetition import Repetition
from services.wire.sampling import Sampling


class Shaping:
    """One sequence's, kept up with its tokens. What it does depends on the request and on the
    tokens alone, so that another router that goes on with the sequence does the same.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        generated: Sequence[int],
        withheld: Collection[int],
        num_withheld: int,
    ) -> None:
        """None of the tokens `withheld` is drawn before `num_withheld` more were."""
        self._biased = torch.tensor([token for token, _ in sampling.logit_bias], dtype=torch.int64)
        self._biases = torch.tensor([bias for _, bias in sampling.logit_bias])
        self._repetition = self._occurrences = None
        if sampling.repetition_penalty != 1.0:
            self._repetition = Repetition(sampling.repetition_penalty, (*prompt, *generated))
        if sampling.presence_penalty or sampling.frequency_penalty:
            self._occurrences = Occurrences(
                sampling.presence_penalty, sampling.frequency_penalty, generated
            )
        self._allowed = torch.tensor(sampling.allowed_token_ids, dtype=torch.int64)
        self._withheld = torch.tensor(sorted(withheld), dtype=torch.int64)
        self._num_withheld = num_withheld

    @classmethod
    def wanted(
        cls,
        sampling: Sampling,
        prompt: Sequence[int],
        generated: Sequence[int] = (),
        *,
        stop_token_ids: Collection[int] = (),
        min_new_tokens: int = 0,
    ) -> "Shaping | None":
        """That of a sequence that asks for any of it; None for one that does not.

        `generated` are tokens that it has already. None of `stop_token_ids` is drawn before there
        are `min_new_tokens`, those among them.
        """
        num_withheld = max(0, min_new_tokens - len(generated)) if stop_token_ids else 0
        is_wanted = (
            sampling.logit_bias
            or sampling.allowed_token_ids
            or sampling.repetition_penalty != 1.0
            or sampling.presence_penalty
            or sampling.frequency_penalty
            or num_withheld
        )
        return cls(sampling, prompt, generated, stop_token_ids, num_withheld) if is_wanted else None

    def note(self, token: int) -> None:
        """The sequence has generated this token."""
        self._num_withheld -= 1
        if self._repetition is not None:
            self._repetition.note(token)
        if self._occurrences is not None:
            self._occurrences.note(token)

    def shaped(self, row: torch.Tensor) -> torch.Tensor:
        """The sequence's next `row` of logits [vocabulary] in float32, which stays as it
        is, after all of it: numbers, and -inf for tokens that are not to be drawn.
        """
        shaped, device = row.clone(), row.device
        if len(self._biased):
            shaped[self._biased.to(device)] += self._biases.to(device)
        if self._repetition is not None:
            self._repetition.penalise(shaped)
        if self._occurrences is not None:
            self._occurrences.penalise(shaped)
        if len(self._allowed):
            allowed = self._allowed.to(device)
            only = torch.full_like(shaped, -torch.inf)
            only[allowed] = shaped[allowed]
            shaped = only
        if self._num_withheld > 0:
            shaped[self._withheld.to(device)] = -torch.inf
        return shaped
