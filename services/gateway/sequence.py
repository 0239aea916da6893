"""One request on its way through the gateway: what the router is asked for, and what comes back."""

import asyncio
from collections.abc import Collection
from collections.abc import Sequence as Sequenced
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from moesaic.v1 import common_pb2, router_pb2
from services.gateway.admission import Place
from services.gateway.deadline import Deadline
from services.wire.errors import ServingError
from services.wire.sampling import Sampling

# A client that stopped reading for a while gets what has gathered in messages of a size that can be
# sent.
MAX_PORTION = 256


@dataclass(frozen=True)
class Order:
    """What the router is asked for, checked and complete."""

    prompt_token_ids: Sequenced[int]
    sampling: Sampling
    max_new_tokens: int
    stop_token_ids: Collection[int]
    return_routed_experts: bool
    trace_detail: int
    traceparent: str
    tracestate: str
    deadline: Deadline

    @property
    def kv_tokens(self) -> int:
        """KV cache that it may need: prompt and continuation together."""
        return len(self.prompt_token_ids) + self.max_new_tokens


class Token(NamedTuple):  # made for each token: a frozen dataclass takes four times as long
    """A token that the router drew."""

    token_id: int
    routed_experts: common_pb2.RoutedExperts | None


@dataclass(frozen=True)
class Finish:
    """The router's last word on a sequence, and when it came by the monotonic clock."""

    message: router_pb2.SequenceFinish
    received_nanos: int


Event = Token | Finish


class Carrier(Protocol):
    """Whatever has taken a sequence to a router."""

    def cancel(self, sequence: "Sequence") -> None:
        """Tell the router that nobody waits any more; nothing where the sequence has ended."""


class Sequence:
    """A request between gateway and router.

    It waits, is taken by a carrier, gets its tokens and one end; before the first token it may be
    put back to wait. What arrives is held here until the request's task reads it: at most
    `max_new_tokens` tokens and an end.
    """

    def __init__(self, order: Order, place: Place, *, now_nanos: int) -> None:
        self.order = order
        self.place = place
        # Counted by the queue; it orders what is put back among what still waits.
        self.arrival = 0
        self.carrier: Carrier | None = None
        # Set when its caller needs no more tokens; then it is not put back.
        self.is_given_up = False
        self.taken = asyncio.Event()
        self.queued_nanos = now_nanos
        self.taken_nanos: int | None = None
        self.num_tokens = 0
        # Routers that were lost with this sequence on them.
        self.num_losses = 0
        self._events: list[Event] = []
        self._failure: ServingError | None = None
        self._arrived = asyncio.Event()

    def take(self, carrier: Carrier, now_nanos: int) -> None:
        """A carrier has it: it waits no longer."""
        self.carrier, self.taken_nanos = carrier, now_nanos
        self.place.leave()
        self.taken.set()

    def put_back(self) -> None:
        """It waits again, and counts as waiting."""
        self.carrier, self.taken_nanos = None, None
        self.place.resume()

    def deliver(self, event: Event) -> None:
        """Hand over a token or the end; more tokens than asked for are the router's fault, and end
        it.
        """
        if self._failure is not None:
            return
        if isinstance(event, Token):
            self.num_tokens += 1
            if self.num_tokens > self.order.max_new_tokens:
                self.fail(ServingError("the router sent more tokens than it was asked for"))
                return
        self._events.append(event)
        self._arrived.set()

    def fail(self, error: ServingError) -> None:
        """End it without the router; the request's task raises `error` once it has read what came
        before.
        """
        self._failure = error
        self.taken.set()
        self._arrived.set()

    async def next_events(self) -> list[Event]:
        """Wait for events and take what is there, in bounded portions; raises the failure after the
        last one.
        """
        await self._arrived.wait()
        events = self._events
        if events:
            self._events = events[MAX_PORTION:]
            if not self._events and self._failure is None:
                self._arrived.clear()
            return events[:MAX_PORTION]
        assert self._failure is not None, "something arrived"
        raise self._failure
