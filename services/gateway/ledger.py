"""What one stream to a router carries: its sequences, its credit, and what is still to be said. It
does no I/O.
"""

import logging
from collections.abc import Sequence as Sequenced

import grpc

from moesaic.v1 import common_pb2
from moesaic.v1 import router_pb2 as pb
from services.gateway.sequence import Finish, Sequence
from services.gateway.waiting import Room
from services.runtime.failures import failure_of
from services.wire.errors import Unavailable
from services.wire.sampling import write_sampling

logger = logging.getLogger(__name__)

# A sequence that takes one router after the other down with it must not take the last one too: it
# ends when so many were lost without a token of it between them. A router that lives and whose
# streams break counts once; that, too, must end some day.
MAX_LOSSES = 2
MAX_FRUITLESS = 5
_REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


class StreamLedger:
    """The state of one `Run` stream. One `Submit` at a time: the batch in flight is the timer for
    the next.
    """

    def __init__(
        self, address: str, description: pb.RouterServiceDescribeResponse | None = None
    ) -> None:
        description = description or pb.RouterServiceDescribeResponse()
        self._address = address
        self._instance = description.instance
        self._checkpoint = (description.model_digest, description.trunk_hash)
        self._credit = pb.Credit()
        self._num_submits = 0
        self._num_sequences = 0
        self._carried: dict[int, Sequence] = {}
        self._numbers: dict[Sequence, int] = {}
        # Tokens that each has to have computed before its next one.
        self._awaited: dict[int, int] = {}
        self.num_awaited_tokens = 0  # of all
        self._to_submit: list[int] = []
        self._to_cancel: list[int] = []

    def __len__(self) -> int:
        return len(self._carried)

    @property
    def room(self) -> Room:
        """What may be submitted now; nothing while the last `Submit` is not acknowledged."""
        if self._credit.acknowledged_submits < self._num_submits:
            return Room()
        return Room(self._credit.sequences, self._credit.kv_tokens)

    @property
    def free_kv_tokens(self) -> int:
        """KV cache that the router said last is free."""
        return self._credit.kv_tokens

    def submit(self, batch: Sequenced[Sequence]) -> None:
        """Put a batch into the next message. It fits in `room`, and the message before it was
        written.
        """
        self._num_submits += 1
        for sequence in batch:
            self._num_sequences += 1
            self._carried[self._num_sequences] = sequence
            self._numbers[sequence] = self._num_sequences
            self._await(
                self._num_sequences, len(sequence.order.prompt_token_ids) + sequence.num_tokens
            )
            self._to_submit.append(self._num_sequences)

    def cancel(self, sequence: Sequence) -> None:
        """Put a cancellation into a next message; its `finish` still comes."""
        number = self._numbers.get(sequence)
        if number is not None:
            self._to_cancel.append(number)

    def next_message(self) -> pb.RunRequest | None:
        """What is to be written next, new sequences before cancellations; None for nothing.

        A sequence that cannot be written fails alone. A batch of which nothing is left is sent all
        the same: what the router acknowledges is counted.
        """
        if self._to_submit:
            numbers, self._to_submit = self._to_submit, []
            sequences = [
                request for number in numbers if (request := self._written(number)) is not None
            ]
            return pb.RunRequest(submit=pb.Submit(sequences=sequences))
        if self._to_cancel:
            numbers, self._to_cancel = self._to_cancel, []
            return pb.RunRequest(cancel=pb.Cancel(sequences=numbers))
        return None

    def apply(self, response: pb.RunResponse, *, now_nanos: int) -> list[Sequence]:
        """Hand what the router says to its sequences; returns those that it gave back: refused
        before they began, or left where they are as it stops.
        """
        given_back = [
            sequence
            for event in response.events
            if (sequence := self._apply(event, now_nanos)) is not None
        ]
        if given_back:  # its credit was not good; wait for a new one
            self._credit = pb.Credit()
        if response.HasField("credit"):
            self._credit = response.credit
        return given_back

    def close(self, now_nanos: int, *, was_slow: bool = False) -> list[Sequence]:
        """The stream broke, or was given up since the router took too long; returns the sequences
        that can go on elsewhere.
        """
        going_on = []
        for sequence in list(self._carried.values()):
            self._forget(sequence)
            if not was_slow:
                sequence.lost_with[self._instance or self._address] = self._address
            if self._goes_on_without(sequence, now_nanos):
                going_on.append(sequence)
        return going_on

    def _goes_on_without(self, sequence: Sequence, now_nanos: int) -> bool:
        """Whether a sequence can, now that the router is lost; where not it has ended."""
        sequence.cut_short(now_nanos)
        sequence.num_fruitless += 1
        lost_with = sequence.lost_with
        if sequence.is_given_up:
            sequence.fail(Unavailable("its router was lost"))
        elif (reason := sequence.order.end_after(sequence.generated)) is not None:
            sequence.finish(Finish(pb.SequenceFinish(reason=reason), now_nanos))
        elif len(lost_with) >= MAX_LOSSES or sequence.num_fruitless >= MAX_FRUITLESS:
            logger.error(
                "the request of trace %r is ended: the routers at %s were lost with it, the last "
                "%d times without a token between",
                sequence.order.traceparent,
                " and ".join(lost_with.values()) or self._address,
                sequence.num_fruitless,
            )
            sequence.fail(
                Unavailable(
                    f"{sequence.num_fruitless} times in a row a router that computed the request "
                    "was lost"
                )
            )
        else:
            return True
        return False

    def _written(self, number: int) -> pb.SequenceRequest | None:
        sequence = self._carried[number]
        try:
            self._check_goes_on(sequence)
            return _request(number, sequence)
        except Exception as error:  # noqa: BLE001 -- the boundary of one sequence: others are written with it
            self._forget(sequence)
            sequence.fail(failure_of(error, "the request to the router"))
            return None

    def _check_goes_on(self, sequence: Sequence) -> None:
        """Raises Unavailable where the router would go on otherwise than another one began."""
        if not sequence.generated:
            sequence.checkpoint = self._checkpoint
            return
        if sequence.checkpoint is None:  # another gateway's router began
            sequence.checkpoint = self._checkpoint
        if not self._instance:
            raise Unavailable(
                "the request's router was lost, and the one that there is cannot go on with it"
            )
        if sequence.checkpoint != self._checkpoint:
            raise Unavailable(
                "the request's router was lost, and the one that there is has another checkpoint"
            )

    def _apply(self, event: pb.SequenceEvent, now_nanos: int) -> Sequence | None:
        sequence = self._carried.get(event.sequence)
        if sequence is None:
            logger.warning(
                "router %s speaks of an unknown sequence %d", self._address, event.sequence
            )
            return None
        if event.HasField("token"):
            token = event.token
            if self._awaited[event.sequence] != 1:
                self._await(event.sequence, 1)
            if sequence.order.top_logprobs is not None:
                sequence.deliver_scores(token)
            is_routed = sequence.order.return_routed_experts and token.HasField("routed_experts")
            sequence.deliver(token.token_id, token.routed_experts if is_routed else None)
            return None
        self._forget(sequence)
        if not sequence.is_given_up:
            if _is_refused(event.finish) and sequence.num_tokens_here == 0:
                return sequence
            if event.finish.is_stopping:
                sequence.cut_short(now_nanos, event.finish)
                return sequence
        sequence.finish(Finish(event.finish, now_nanos))
        return None

    def _await(self, number: int, num_tokens: int) -> None:
        self.num_awaited_tokens += num_tokens - self._awaited.get(number, 0)
        self._awaited[number] = num_tokens

    def _forget(self, sequence: Sequence) -> None:
        number = self._numbers.pop(sequence)
        del self._carried[number]
        self.num_awaited_tokens -= self._awaited.pop(number)
        sequence.carrier = None


def _is_refused(finish: pb.SequenceFinish) -> bool:
    return finish.reason == common_pb2.FINISH_REASON_ERROR and finish.status_code == _REFUSED


def _request(number: int, sequence: Sequence) -> pb.SequenceRequest:
    order = sequence.order
    return pb.SequenceRequest(
        sequence=number,
        prompt_token_ids=order.prompt_token_ids,
        generated_token_ids=sequence.generated,
        sampling=write_sampling(order.sampling),
        max_new_tokens=order.max_new_tokens,
        stop_token_ids=order.stop_token_ids,
        return_routed_experts=order.return_routed_experts,
        min_new_tokens=order.min_new_tokens,
        top_logprobs=order.top_logprobs,
        # Those came with the first token.
        prompt_logprobs=order.prompt_logprobs and not sequence.generated,
        remaining_nanos=order.deadline.remaining_nanos,
        trace=common_pb2.TraceContext(traceparent=order.traceparent, tracestate=order.tracestate),
        trace_detail=common_pb2.TraceDetail.ValueType(order.trace_detail),
    )
