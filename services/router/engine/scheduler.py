"""Which tokens of which sequences the next step computes: pure policy, no tensors, no clock, no
loop.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from services.model.block_table import BlockPool
from services.router.engine.sequence import Sequence
from services.wire.errors import InvalidRequest, Overloaded

# Logits of one step, beside those that tokens are drawn from: 64 MiB.
MAX_SCORED_LOGITS = 1 << 24


@dataclass(frozen=True)
class ScheduledTokens:
    """The next `num_tokens` pending tokens of a sequence."""

    sequence: Sequence
    num_tokens: int

    @property
    def draws(self) -> bool:
        """Whether the sequence has nothing pending after this, so that its next token is drawn."""
        return self.num_tokens == self.sequence.num_pending


@dataclass(frozen=True)
class Room:
    """What could be taken in now."""

    sequences: int
    kv_tokens: int


class Scheduler:
    """Continuous batching with chunked prefill under a budget of tokens for each step.

    A sequence waits until its worst case is reserved in the KV cache, first come first served, and
    belongs to one lane from then on; between steps of its lane it may move to another. Decodes go
    before prefills. `max_batch_tokens` is at least `max_sequences`, so that no decode ever waits.
    Of tokens whose logits are all read, a step has at most `max_scored_tokens`.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_sequences: int,
        max_context: int,
        max_batch_tokens: int,
        max_lanes: int = 1,
        max_scored_tokens: int = MAX_SCORED_LOGITS,
    ) -> None:
        self._pool = pool
        self._max_sequences = max_sequences
        self._max_context = max_context
        self._max_batch_tokens = max_batch_tokens
        self._max_scored_tokens = max_scored_tokens
        self._waiting: deque[Sequence] = deque()
        self._lanes: list[deque[Sequence]] = [deque() for _ in range(max_lanes)]
        self.lanes_in_use = (
            max_lanes  # the first so many take sequences; `spread` empties the others
        )

    @property
    def num_sequences(self) -> int:
        return len(self._waiting) + self.num_running

    @property
    def num_running(self) -> int:
        """Sequences that have their reservation."""
        return sum(map(len, self._lanes))

    def is_alone(self, lane: int) -> bool:
        """Whether no other lane has sequences."""
        return len(self._lanes[lane]) == self.num_running

    def room(self) -> Room:
        """What the gateway may submit; waiting sequences count as if they had their reservation."""
        promised = sum(sequence.order.worst_case_tokens for sequence in self._waiting)
        kv_tokens = max(0, self._pool.free_tokens - promised)
        return Room(max(0, self._max_sequences - self.num_sequences), kv_tokens)

    def submit(self, sequence: Sequence) -> None:
        """Take a sequence in. Raises InvalidRequest when it can never run, Overloaded when too many
        are here.
        """
        needed = sequence.order.worst_case_tokens
        if needed > self._max_context:
            raise InvalidRequest(
                f"prompt of {len(sequence.order.prompt)} tokens and max_new_tokens of "
                f"{sequence.order.max_new_tokens} "
                f"exceed the context of {self._max_context} tokens"
            )
        if self.num_sequences >= self._max_sequences:
            raise Overloaded(f"{self._max_sequences} sequences are in flight already")
        self._waiting.append(sequence)

    def spread(self, lane: int) -> bool:
        """Move what the lane has beyond its share to other lanes; whether it did. Call it between
        steps of the lane.
        """
        own = self._lanes[lane]
        share = -(-self.num_running // self.lanes_in_use) if lane < self.lanes_in_use else 0
        num_moved = len(own) - share
        for _ in range(num_moved):
            self._put(own.pop())
        return num_moved > 0

    def next_batch(self, lane: int) -> list[ScheduledTokens]:
        """The work of the lane's next step; empty when there is none. Ended sequences are left out,
        not removed.
        """
        self._admit()
        running = [sequence for sequence in self._lanes[lane] if sequence.ending is None]
        if (
            alone := next((sequence for sequence in running if sequence.goes_alone), None)
        ) is not None:
            running = [alone]
        budget, to_score, batch = self._max_batch_tokens, self._max_scored_tokens, []
        for sequence in sorted(running, key=lambda sequence: sequence.is_prefilling):
            num_tokens = min(sequence.num_pending, budget)
            if sequence.order.scoring is not None and (num_scored := sequence.num_to_score):
                # Those that are not scored follow in the same step only where all others fit.
                num_tokens = min(num_tokens, to_score) if num_scored > to_score else num_tokens
                to_score -= min(num_tokens, num_scored)
            if num_tokens:
                batch.append(ScheduledTokens(sequence, num_tokens))
                budget -= num_tokens
        return batch

    def ended_sequences(self, lane: int) -> list[Sequence]:
        """Sequences of the lane, and waiting ones, that have ended and are not removed yet."""
        return [
            sequence
            for sequence in (*self._waiting, *self._lanes[lane])
            if sequence.ending is not None
        ]

    def remove(self, sequence: Sequence) -> None:
        """Forget an ended sequence and free its blocks; call it between steps of its lane."""
        queue: deque[Sequence] = (
            self._waiting if sequence.table is None else self._lanes[sequence.lane]
        )
        queue.remove(sequence)
        if sequence.table is not None:
            self._pool.release(sequence.table)
            sequence.table = None

    def sequences(self) -> Iterable[Sequence]:
        """Every sequence that is here."""
        yield from self._waiting
        for lane in self._lanes:
            yield from lane

    def _admit(self) -> None:
        while self._waiting:
            sequence = self._waiting[0]
            if sequence.ending is not None:
                return
            table = self._pool.reserve(sequence.order.worst_case_tokens)
            if table is None:
                return
            self._waiting.popleft()
            sequence.table = table
            self._put(sequence)

    def _put(self, sequence: Sequence) -> None:
        sequence.lane = min(range(self.lanes_in_use), key=lambda lane: len(self._lanes[lane]))
        self._lanes[sequence.lane].append(sequence)


def most_scored_tokens(vocab_size: int) -> int:
    """Tokens of a step whose logits may all be read, at least one."""
    return max(1, MAX_SCORED_LOGITS // vocab_size)
