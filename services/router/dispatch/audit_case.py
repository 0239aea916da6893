"""What is kept of a frame that is computed twice."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from services.router.arrays import Indices, Mask
from services.router.dispatch.combine import Returned
from services.router.dispatch.scatter import Outgoing
from services.router.engine.step import Step
from services.router.peers.question import Question

# Of a frame, chosen at random: to copy more would delay the step.
MAX_PAIRS = 64


@dataclass(frozen=True, slots=True)
class Case:
    """A frame, or a part of it, and what the service at `address` made of it: the answer."""

    address: str
    question: Question


def case_of(part: Returned, outgoing: Outgoing, step: Step) -> Case | None:
    """Copies of what was sent and what came back; None where nothing can be compared."""
    hidden_size = outgoing.hidden.shape[1]
    if outgoing.weights is not None:  # where a row is answered by its sum
        if not part.data or len(part.positions) < len(part.pairs.positions):
            return None  # a sum of some pairs is the sum of no others
        rows = _some(len(part.pairs.rows), max(1, MAX_PAIRS // outgoing.top_k))
        mine = np.isin(part.pairs.pair_rows, rows)
        tokens, pair_rows = part.pairs.rows[rows], np.searchsorted(rows, part.pairs.pair_rows[mine])
        positions = part.pairs.positions[mine]
    else:
        rows = _some(len(part.positions), MAX_PAIRS)
        positions = part.positions[rows]
        tokens, pair_rows = positions // outgoing.top_k, np.arange(len(rows))
    question = Question(
        outgoing.layer,
        outgoing.hidden[torch.from_numpy(tokens)],
        pair_rows.astype(np.uint32),
        outgoing.experts[positions].astype(np.uint32),
        None if outgoing.weights is None else outgoing.weights[positions],
        step.requests_of(np.unique(tokens)),
        part.rows(hidden_size)[torch.from_numpy(rows)],
    )
    return Case(part.address, question) if len(rows) else None


def narrowed(question: Question, ready: Mask) -> Question | None:
    """What of a question can be asked of a service with the experts `ready` [experts]; None for
    nothing.
    """
    is_had: Mask = ready[question.experts]
    if question.weights is None:
        return part_of(question, is_had) if is_had.any() else None
    return question if is_had.all() else None


def part_of(question: Question, pairs: Mask) -> Question:
    """These pairs of one whose pairs are answered each."""
    assert question.answer is not None
    assert question.weights is None
    rows = torch.from_numpy(np.flatnonzero(pairs))
    return replace(
        question,
        rows=question.rows[rows],
        pair_rows=np.arange(len(rows), dtype=np.uint32),
        experts=question.experts[pairs],
        answer=question.answer[rows],
    )


def _some(count: int, most: int) -> Indices:
    """At most so many of the numbers below `count`, ascending."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng().choice(count, most, replace=False))
