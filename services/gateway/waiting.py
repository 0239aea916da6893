"""The queue for a router: which sequences go next. Policy alone; it never waits and never sends."""

import bisect
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from services.gateway.sequence import Sequence

# Tokens of prompt and continuation that each client in turn may take more of. Small against most
# requests, so that turns are short.
QUANTUM_TOKENS = 256


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


@dataclass
class _Client:
    """Its sequences in their order, and the tokens that it may take before the next one's turn."""

    sequences: deque[Sequence] = field(default_factory=deque)
    tokens: int = 0


class WaitingQueue:
    """Deficit round robin by client (Shreedhar and Varghese, 1995): each client in turn may take
    so many tokens of prompt and continuation; what it does not take is kept while it waits.

    Of one client the higher priority goes first, then who came first. Nothing overtakes the head,
    so that short requests starve no long one.
    """

    def __init__(self, *, max_batch_requests: int, max_batch_tokens: int) -> None:
        self._max_batch_requests = max_batch_requests
        self._max_batch_tokens = max_batch_tokens
        # Whose turn it is comes first.
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._waiting: set[Sequence] = set()
        self._num_arrivals = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Put a new sequence behind its client's others of its priority."""
        self._num_arrivals += 1
        sequence.arrival = self._num_arrivals
        self._insert(self._clients.setdefault(sequence.order.client, _Client()), sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Give a sequence that a router took and did not finish its old place, before all that came
        after it, and its client the tokens that it took.
        """
        name = sequence.order.client
        if name not in self._clients:
            self._clients[name] = _Client()
            self._clients.move_to_end(name, last=False)
        client = self._clients[name]
        client.tokens += sequence.order.kv_tokens
        self._insert(client, sequence)

    def discard(self, sequence: Sequence) -> None:
        """Forget a sequence whose caller left."""
        if sequence in self._waiting:
            name = sequence.order.client
            self._remove(name, self._clients[name], sequence)

    def drain(self) -> list[Sequence]:
        """Take everything out, in the order of arrival."""
        waiting = [each for client in self._clients.values() for each in client.sequences]
        self._clients.clear()
        self._waiting.clear()
        return sorted(waiting, key=lambda sequence: sequence.arrival)

    def head(self, now_seconds: float) -> Sequence | None:
        """The sequence that goes next; those whose time is up are dropped on the way to it."""
        while self._clients:
            name, client = next(iter(self._clients.items()))
            first = client.sequences[0]
            if first.order.deadline.at_seconds <= now_seconds:
                self._remove(name, client, first)
            elif len(self._clients) == 1 or first.order.kv_tokens <= client.tokens:
                return first
            else:
                client.tokens += QUANTUM_TOKENS
                self._clients.move_to_end(name)
        return None

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
            batch.append(self.take(head))
        return batch

    def take(self, head: Sequence) -> Sequence:
        """Take out the head."""
        client = self._clients[head.order.client]
        # Who waits alone owes nobody anything.
        client.tokens = max(0, client.tokens - head.order.kv_tokens)
        self._remove(head.order.client, client, head)
        return head

    def _insert(self, client: _Client, sequence: Sequence) -> None:
        self._waiting.add(sequence)
        if not client.sequences or _rank(client.sequences[-1]) < _rank(sequence):  # mostly
            client.sequences.append(sequence)
        else:
            bisect.insort(client.sequences, sequence, key=_rank)

    def _remove(self, name: str, client: _Client, sequence: Sequence) -> None:
        client.sequences.remove(sequence)
        self._waiting.discard(sequence)
        if not client.sequences:  # who waits for nothing saves nothing
            del self._clients[name]


def _rank(sequence: Sequence) -> tuple[int, int]:
    """The lower of one client goes first."""
    return -sequence.order.priority, sequence.arrival
