"""The queue for a router: which sequences go next. Policy alone; it never waits and never sends."""

import bisect
from collections import deque
from dataclasses import dataclass

from services.gateway.sequence import Sequence


@dataclass(frozen=True)
class Room:
    """What a router can take now."""

    sequences: int = 0
    kv_tokens: int = 0

    def fits(self, sequence: Sequence) -> bool:
        """Whether the router can take this sequence."""
        return self.sequences >= 1 and sequence.order.kv_tokens <= self.kv_tokens

    def less(self, sequence: Sequence) -> "Room":
        """What is left once it has."""
        return Room(self.sequences - 1, self.kv_tokens - sequence.order.kv_tokens)


class WaitingQueue:
    """First come, first served: nothing overtakes the head, so that short requests starve no long
    one.
    """

    def __init__(self, *, max_batch_requests: int, max_batch_tokens: int) -> None:
        self._max_batch_requests = max_batch_requests
        self._max_batch_tokens = max_batch_tokens
        self._waiting: deque[Sequence] = deque()
        self._num_arrivals = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Put a new sequence at the end."""
        self._num_arrivals += 1
        sequence.arrival = self._num_arrivals
        self._waiting.append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Give a sequence that a router did not begin its old place, before all that
        came after it.
        """
        bisect.insort(self._waiting, sequence, key=lambda waiting: waiting.arrival)

    def discard(self, sequence: Sequence) -> None:
        """Forget a sequence whose caller left."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)

    def drain(self) -> list[Sequence]:
        """Take everything out."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def head(self, now_seconds: float) -> Sequence | None:
        """The sequence that goes next; those whose time is up are dropped on the way to it."""
        while self._waiting and self._waiting[0].order.deadline.at_seconds <= now_seconds:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def take_batch(self, room: Room, now_seconds: float) -> list[Sequence]:
        """The next batch for a router with `room`; empty if the head does not fit.

        It is bounded in requests and in prompt tokens; a prompt above that bound goes alone.
        """
        batch: list[Sequence] = []
        tokens = self._max_batch_tokens
        while (
            len(batch) < self._max_batch_requests and (head := self.head(now_seconds)) is not None
        ):
            prompt_tokens = len(head.order.prompt_token_ids)
            if not room.fits(head) or (batch and prompt_tokens > tokens):
                break
            room, tokens = room.less(head), tokens - prompt_tokens
            batch.append(self._waiting.popleft())
        return batch
