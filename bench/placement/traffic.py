"""Traffic made of recorded text: of one topic or all, in steps that prefill or decode, to plan by
and to judge on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.placement.text import WINDOW
from services.router.load.recording import Recording, joined

ONE_TOPIC, MIXED = "one topic", "mixed"
PREFILL, DECODE = "prefill", "decode"
DECODE_BATCH = 16


@dataclass(frozen=True, eq=False)
class Traffic:
    """Cases of one kind, each a recording to plan by and one to judge on, which is other text of
    the same topics.
    """

    topics: str
    step: str
    cases: Sequence[tuple[Recording, Recording]]

    def __str__(self) -> str:
        return f"{self.step}, {self.topics}"


def traffics(recordings: Sequence[Recording]) -> list[Traffic]:
    """Each topic alone, and all of them at once; in steps of a window's tokens, and in decode of
    DECODE_BATCH.
    """
    parts = [halves(recording) for recording in recordings]
    seen, unseen = zip(*parts, strict=True)
    whole = (joined(seen), joined(unseen))
    return [
        Traffic(ONE_TOPIC, PREFILL, parts),
        Traffic(MIXED, PREFILL, [(mixed(seen), mixed(unseen))]),
        Traffic(ONE_TOPIC, DECODE, [(decoded(first), decoded(second)) for first, second in parts]),
        Traffic(MIXED, DECODE, [(decoded(whole[0]), decoded(whole[1]))]),
    ]


def halves(recording: Recording) -> tuple[Recording, Recording]:
    """The one to plan by and the one to judge by: different text of the same kind."""
    middle = recording.num_steps // 2
    return recording.between(0, middle), recording.between(middle, recording.num_steps)


def mixed(parts: Sequence[Recording]) -> Recording:
    """The windows of all of them, each step with a piece of every one's, in as many tokens as
    before.

    Raises ValueError unless all have as many windows, and a window can be cut in as many pieces.
    """
    num_parts, num_windows, num_layers = len(parts), parts[0].num_steps, parts[0].num_layers
    if WINDOW % num_parts or any(part.num_steps != num_windows for part in parts):
        raise ValueError(f"{num_parts} recordings do not share steps of {WINDOW} tokens")
    whole = joined(parts)
    # [layers, parts, windows, pieces, tokens, k]: a step is a piece of the same window of every
    # part.
    pieces = whole.experts.reshape(
        num_layers, num_parts, num_windows, num_parts, WINDOW // num_parts, -1
    )
    experts = pieces.transpose(0, 2, 3, 1, 4, 5).reshape(whole.experts.shape)
    return Recording("mixed", whole.num_experts, experts, whole.rows, whole.is_decode)


def decoded(recording: Recording, batch: int = DECODE_BATCH) -> Recording:
    """The same windows as so many sequences at a time decode them: a step has one token of each.

    An expert is chosen by the tokens up to there, whether they were computed in one step or many.
    The windows of a batch are as far apart as can be, so that one of joined topics has all of them.
    """
    num_batches = recording.num_steps // batch
    experts = recording.experts[:, : num_batches * batch * WINDOW]
    # [layers, sequences, batches, positions, k] to steps of one position.
    windows = experts.reshape(recording.num_layers, batch, num_batches, WINDOW, -1)
    steps = windows.transpose(0, 2, 3, 1, 4).reshape(experts.shape)
    num_steps = num_batches * WINDOW
    rows = np.full(num_steps, batch, dtype=np.int64)
    return Recording(
        recording.topic, recording.num_experts, steps, rows, np.ones(num_steps, dtype=bool)
    )
