"""What a step's logits come to: a token for each sequence that draws, and how likely tokens were
where that is asked for. It changes no sequence, so that it can be done beside the loop.
"""

from dataclasses import dataclass, field

import torch

from services.model.likelihood import Likelihood, likelihood
from services.model.sampler import are_finite, draw_all
from services.router.engine.sequence import Sequence
from services.router.engine.step import Step

# More logits than these are read beside the loop, which goes on meanwhile: to hand them over costs
# some tens of microseconds, as some of them do.
MOST_LOGITS_ON_LOOP = 1 << 21


@dataclass(frozen=True)
class Draws:
    """Tokens and likelihoods, by the numbers of their sequences, and the sequences whose logits
    were not finite.
    """

    tokens: dict[int, int] = field(default_factory=dict)
    likelihoods: dict[int, Likelihood] = field(default_factory=dict)
    prompt_scores: dict[int, list[Likelihood]] = field(default_factory=dict)
    not_finite: list[Sequence] = field(default_factory=list)


def is_much(step: Step, logits: torch.Tensor) -> bool:
    """Whether there is so much to read that the loop had better go on meanwhile."""
    num_scored = 0 if step.scored is None else step.scored.numel()
    return logits.numel() + num_scored > MOST_LOGITS_ON_LOOP


def draws_of(step: Step, logits: torch.Tensor) -> Draws:
    """Draw for every sequence that is still wanted, from the step's `logits` [drawing, vocabulary],
    and score what is to be scored.
    """
    draws = Draws()
    if step.scored is not None:
        _score(step, step.scored, draws)
    finite = are_finite(logits)
    rows, wanted = [], []
    for row, sequence in enumerate(step.drawing):
        if sequence.ending is not None:
            continue
        if finite[row]:
            rows.append(row)
            wanted.append(sequence)
        else:
            draws.not_finite.append(sequence)
    if wanted:
        logits = logits if len(rows) == len(logits) else logits[rows]
        _draw(logits, wanted, draws)
    return draws


def _draw(logits: torch.Tensor, sequences: list[Sequence], draws: Draws) -> None:
    tokens = draw_all(
        logits,
        [sequence.order.sampling for sequence in sequences],
        [sequence.num_tokens for sequence in sequences],
        [sequence.shaping for sequence in sequences],
    )
    for row, (sequence, token) in enumerate(zip(sequences, tokens, strict=True)):
        draws.tokens[sequence.number] = token
        scoring = sequence.order.scoring
        if scoring is not None:
            draws.likelihoods[sequence.number] = likelihood(logits[row], token, scoring.num_top)


def _score(step: Step, scored: torch.Tensor, draws: Draws) -> None:
    rows = iter(zip(scored, are_finite(scored), strict=True))
    for work, num_rows in zip(step.batch, step.num_scored, strict=True):
        sequence, scoring = work.sequence, work.sequence.order.scoring
        if not num_rows or scoring is None:
            continue
        scores = draws.prompt_scores.setdefault(sequence.number, [])
        first = sequence.num_computed + 1
        for token in sequence.order.prompt[first : first + num_rows]:
            row, is_finite = next(rows)
            if is_finite:
                scores.append(likelihood(row, token, scoring.num_top))
            elif sequence not in draws.not_finite:
                draws.not_finite.append(sequence)
