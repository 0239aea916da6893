"""One sequence on its way through the router."""

import enum
from dataclasses import dataclass, field

from services.model.block_table import BlockTable
from services.model.likelihood import Likelihood
from services.model.shaping import Shaping
from services.router.times.receipt import SequenceReceipt
from services.runtime.span_writing import SpanRef
from services.wire.errors import ServingError, Unavailable
from services.wire.sampling import Sampling


class TraceDetail(enum.IntEnum):
    """How much of a request is traced; the numbers are common.proto's."""

    UNSPECIFIED = 0
    REQUEST = 1
    STEP = 2
    LAYER = 3


class EndReason(enum.IntEnum):
    """Why a sequence ended; the numbers are common.proto's."""

    STOP = 1
    LENGTH = 2
    CANCELLED = 3
    DEADLINE = 4
    ERROR = 5


class Stopping(Unavailable):
    """The router stops, and nothing else is wrong: another one can go on with the sequence."""


@dataclass(frozen=True)
class Ending:
    """The end of a sequence; `error` is set for ERROR and for nothing else."""

    reason: EndReason
    error: ServingError | None = None


@dataclass(frozen=True)
class Scoring:
    """What is to be said of how likely the tokens are: the `num_top` most likely ones beside each,
    and of the first `num_prompt` tokens, too, from the second on.
    """

    num_top: int
    num_prompt: int = 0


@dataclass(frozen=True)
class Order:
    """What was asked for: checked by whoever submits it, unchanging.

    The last `num_resumed` tokens of `prompt` were generated elsewhere; `min_new_tokens` counts
    them, and `max_new_tokens` does not.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    max_new_tokens: int
    stop_token_ids: frozenset[int] = frozenset()
    num_resumed: int = 0
    min_new_tokens: int = 0
    scoring: Scoring | None = None
    return_routed_experts: bool = False
    trace_parent: SpanRef | None = None
    trace_detail: TraceDetail = TraceDetail.UNSPECIFIED

    @property
    def worst_case_tokens(self) -> int:
        """Tokens of KV cache that it takes if it runs to its limit."""
        return len(self.prompt) + self.max_new_tokens


@dataclass(frozen=True)
class SequenceTrace:
    """A sequence that is traced: its span, the one above it, and how deep; `is_chosen` by the
    router for its layers.
    """

    span: SpanRef
    parent_id: bytes
    detail: TraceDetail
    is_chosen: bool = False


@dataclass(eq=False)
class Sequence:
    """An order being carried out. `number` names it within this router, towards the experts too.

    `num_computed` tokens have their keys and values in the cache; what is known beyond them is
    pending.
    """

    number: int
    order: Order
    receipt: SequenceReceipt
    trace: SequenceTrace | None = None
    generated: list[int] = field(default_factory=list)
    num_computed: int = 0
    table: BlockTable | None = None
    lane: int = 0
    ending: Ending | None = None
    goes_alone: bool = False  # a step with it failed, and nobody knows yet whose fault that was
    overflowed_pairs: int = 0
    shaping: Shaping | None = None
    # Of the prompt's tokens from the second on, where they are asked for.
    prompt_scores: list[Likelihood] = field(default_factory=list)

    def __post_init__(self) -> None:
        order = self.order
        num_prompt = len(order.prompt) - order.num_resumed
        self.shaping = Shaping.wanted(
            *(order.sampling, order.prompt[:num_prompt], order.prompt[num_prompt:]),
            stop_token_ids=order.stop_token_ids,
            min_new_tokens=order.min_new_tokens,
        )

    @property
    def num_tokens(self) -> int:
        return len(self.order.prompt) + len(self.generated)

    @property
    def num_pending(self) -> int:
        return self.num_tokens - self.num_computed

    @property
    def is_prefilling(self) -> bool:
        return self.num_computed < len(self.order.prompt)

    @property
    def num_to_score(self) -> int:
        """Tokens of the prompt whose likelihood is still asked for: each by the logits of the
        position before it.
        """
        scoring = self.order.scoring
        return max(0, scoring.num_prompt - 1 - self.num_computed) if scoring else 0

    def tokens(self, start: int, count: int) -> list[int]:
        """`count` known tokens from position `start` on."""
        prompt = self.order.prompt
        if start >= len(prompt):
            return self.generated[start - len(prompt) : start - len(prompt) + count]
        return [
            *prompt[start : start + count],
            *self.generated[: max(0, start + count - len(prompt))],
        ]

    def take_scores(self) -> list[Likelihood]:
        """What there is to be said of the prompt's tokens, once."""
        scores, self.prompt_scores = self.prompt_scores, []
        return scores

    def end(self, reason: EndReason, error: ServingError | None = None) -> None:
        """Mark the end; the first one counts."""
        if self.ending is None:
            self.ending = Ending(reason, error)

    def take(self, token: int) -> None:
        """Append a drawn token and end the sequence where it says so."""
        self.generated.append(token)
        if self.shaping is not None:
            self.shaping.note(token)
        if token in self.order.stop_token_ids:
            self.end(EndReason.STOP)
        elif len(self.generated) >= self.order.max_new_tokens:
            self.end(EndReason.LENGTH)
