"""One request on its way through the gateway: what the router is asked for, and what comes back."""

import asyncio
from array import array
from collections.abc import Collection
from collections.abc import Sequence as Sequenced
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from moesaic.v1 import common_pb2, router_pb2
from services.gateway.admission import Place
from services.gateway.deadline import Deadline
from services.gateway.stays import EarlierStays
from services.runtime.doorbell import Doorbell
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
    # Whose it is, and how it stands among this client's others: the higher goes first.
    client: str
    priority: int = 0
    min_new_tokens: int = 0
    # None where nothing is to be said of how likely tokens are.
    top_logprobs: int | None = None
    prompt_logprobs: bool = False

    @property
    def kv_tokens(self) -> int:
        """KV cache that it may need: prompt and continuation together."""
        return len(self.prompt_token_ids) + self.max_new_tokens

    def end_after(self, generated: Sequenced[int]) -> "common_pb2.FinishReason.ValueType | None":
        """Why nothing follows these tokens; None where something does."""
        if generated and generated[-1] in self.stop_token_ids:
            return common_pb2.FINISH_REASON_STOP
        if len(generated) >= self.max_new_tokens:
            return common_pb2.FINISH_REASON_LENGTH
        return None


@dataclass(frozen=True)
class Finish:
    """The router's last word on a sequence, and when it came by the monotonic clock."""

    message: router_pb2.SequenceFinish
    received_nanos: int


class Portion(NamedTuple):  # made for each token: a frozen dataclass takes four times as long
    """What came of a sequence: some tokens, and after the last of them the end."""

    token_ids: list[int]
    # One for each token where they were asked for, else empty.
    routed_experts: list[common_pb2.RoutedExperts]
    finish: Finish | None
    # Likewise.
    logprobs: Sequenced[common_pb2.PositionLogprobs] = ()
    # Of the prompt, with its first token.
    prompt_logprobs: Sequenced[common_pb2.PositionLogprobs] = ()


class Carrier(Protocol):
    """Whatever has taken a sequence to a router."""

    def cancel(self, sequence: "Sequence") -> None:
        """Tell the router that nobody waits any more; nothing where the sequence has ended."""


class Sequence:
    """A request between gateway and router.

    It waits, is taken by a carrier, gets its tokens and one end; when its router is lost it is put
    back to wait, and goes on after the last token that came. What arrives is held here until the
    request's task reads it: at most `max_new_tokens` tokens and an end.
    """

    def __init__(
        self, order: Order, place: Place, *, now_nanos: int, generated: Sequenced[int] = ()
    ) -> None:
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
        # Every token that came, by another gateway or here: whoever goes on needs them.
        self.generated = array("I", generated)
        self._num_before = 0  # of them, when its carrier took it
        # The checkpoint that computed them, in the words of the router.
        self.checkpoint: tuple[str, bytes] | None = None
        # Routers that were lost with this sequence on them since the last token, and where.
        self.lost_with: dict[str, str] = {}
        self.num_fruitless = 0  # losses since the last token, of whichever router
        self.earlier = EarlierStays()
        self._is_to_resume = False
        self._token_ids: list[int] = []
        self._routed_experts: list[common_pb2.RoutedExperts] = []
        self._logprobs: list[common_pb2.PositionLogprobs] = []
        self._prompt_logprobs: Sequenced[common_pb2.PositionLogprobs] = ()
        self._finish: Finish | None = None
        self._failure: ServingError | None = None
        self._arrived = Doorbell()

    def take(self, carrier: Carrier, now_nanos: int) -> None:
        """A carrier has it: it waits no longer."""
        self.carrier, self.taken_nanos = carrier, now_nanos
        self._num_before = len(self.generated)
        if self._is_to_resume:
            self._is_to_resume = False
            self.earlier.resume()
        self.place.leave()
        self.taken.set()

    def put_back(self) -> None:
        """It waits again, and counts as waiting."""
        self.carrier, self.taken_nanos = None, None
        self.place.resume()

    def cut_short(self, now_nanos: int, finish: router_pb2.SequenceFinish | None = None) -> None:
        """Its router was lost, or stops and says so by `finish`: that stay is over."""
        if self.taken_nanos is not None:
            self.earlier.add(
                queue_nanos=self.taken_nanos - self.queued_nanos,
                call_nanos=now_nanos - self.taken_nanos,
                finish=finish,
            )
        self.taken_nanos, self.queued_nanos = None, now_nanos
        self._is_to_resume = True

    @property
    def num_tokens(self) -> int:
        """Tokens that came so far."""
        return len(self.generated)

    @property
    def num_tokens_here(self) -> int:
        """Those of them that its carrier brought."""
        return len(self.generated) - self._num_before

    def deliver_scores(self, token: router_pb2.SequenceToken) -> None:
        """Hand over how likely the next token is, and with it the prompt's, before the token."""
        if token.HasField("logprobs"):
            self._logprobs.append(token.logprobs)
            self._prompt_logprobs = self._prompt_logprobs or token.prompt_logprobs
        elif self._failure is None:
            self.fail(ServingError("the router does not say how likely tokens are"))

    def deliver(self, token_id: int, routed_experts: common_pb2.RoutedExperts | None) -> None:
        """Hand over a token; more of them than asked for are the router's fault, and end it."""
        if self._failure is not None:
            return
        if len(self.generated) >= self.order.max_new_tokens:
            self.fail(ServingError("the router sent more tokens than it was asked for"))
            return
        self.generated.append(token_id)
        if self.num_fruitless:
            self.num_fruitless = 0
            self.lost_with.clear()
        self._token_ids.append(token_id)
        if routed_experts is not None:
            self._routed_experts.append(routed_experts)
        self._arrived.ring()

    def finish(self, finish: Finish) -> None:
        """Hand over the end."""
        if self._failure is None:
            self._finish = finish
            self._arrived.ring()

    def fail(self, error: ServingError) -> None:
        """End it without the router; the request's task raises `error` once it has read what came
        before.
        """
        self._failure = error
        self.taken.set()
        self._arrived.ring()

    async def next_portion(self) -> Portion:
        """Wait for tokens or the end and take what is there, in bounded portions; raises the
        failure after the last one.
        """
        while not self._token_ids and self._finish is None:
            if self._failure is not None:
                raise self._failure
            await self._arrived.wait_for_ring()
        token_ids, routed = self._token_ids, self._routed_experts
        self._token_ids, self._routed_experts = token_ids[MAX_PORTION:], routed[MAX_PORTION:]
        finish = None
        if self._token_ids:
            token_ids, routed = token_ids[:MAX_PORTION], routed[:MAX_PORTION]
        else:
            finish, self._finish = self._finish, None
        if not self._logprobs:
            return Portion(token_ids, routed, finish)
        logprobs, self._logprobs = self._logprobs, self._logprobs[len(token_ids) :]
        of_prompt, self._prompt_logprobs = self._prompt_logprobs, ()
        return Portion(token_ids, routed, finish, logprobs[: len(token_ids)], of_prompt)
