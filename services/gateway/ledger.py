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

# A sequence that takes one router after the other down with it must not take the last one too.
MAX_LOSSES = 2
_REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


class StreamLedger:
    """The state of one `Run` stream. One `Submit` at a time: the batch in flight is the timer for
    the next.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._credit = pb.Credit()
        self._num_submits = 0
        self._num_sequences = 0
        self._carried: dict[int, Sequence] = {}
        self._numbers: dict[Sequence, int] = {}
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

    def submit(self, batch: Sequenced[Sequence]) -> None:
        """Put a batch into the next message. It fits in `room`, and the message before it was
        written.
        """
        self._num_submits += 1
        for sequence in batch:
            self._num_sequences += 1
            self._carried[self._num_sequences] = sequence
            self._numbers[sequence] = self._num_sequences
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
        """Hand what the router says to its sequences; returns those that it refused before they
        began.
        """
        refused = [
            sequence
            for event in response.events
            if (sequence := self._apply(event, now_nanos)) is not None
        ]
        if refused:  # its credit was not good; wait for a new one
            self._credit = pb.Credit()
        if response.HasField("credit"):
            self._credit = response.credit
        return refused

    def close(self) -> list[Sequence]:
        """The stream broke: sequences that have tokens fail; returns those that can begin again
        elsewhere.
        """
        unbegun = []
        for sequence in list(self._carried.values()):
            self._forget(sequence)
            sequence.num_losses += 1
            if (
                sequence.num_tokens == 0
                and sequence.num_losses <= MAX_LOSSES
                and not sequence.is_given_up
            ):
                unbegun.append(sequence)
            else:
                sequence.fail(Unavailable(f"the router at {self._address} was lost"))
        return unbegun

    def _written(self, number: int) -> pb.SequenceRequest | None:
        sequence = self._carried[number]
        try:
            return _request(number, sequence)
        except Exception as error:  # noqa: BLE001 -- the boundary of one sequence: others are written with it
            self._forget(sequence)
            sequence.fail(failure_of(error, "the request to the router"))
            return None

    def _apply(self, event: pb.SequenceEvent, now_nanos: int) -> Sequence | None:
        sequence = self._carried.get(event.sequence)
        if sequence is None:
            logger.warning(
                "router %s speaks of an unknown sequence %d", self._address, event.sequence
            )
            return None
        if event.HasField("token"):
            token = event.token
            is_routed = sequence.order.return_routed_experts and token.HasField("routed_experts")
            sequence.deliver(token.token_id, token.routed_experts if is_routed else None)
            return None
        self._forget(sequence)
        if _is_refused(event.finish) and sequence.num_tokens == 0 and not sequence.is_given_up:
            return sequence
        sequence.finish(Finish(event.finish, now_nanos))
        return None

    def _forget(self, sequence: Sequence) -> None:
        del self._carried[self._numbers.pop(sequence)]
        sequence.carrier = None


def _is_refused(finish: pb.SequenceFinish) -> bool:
    return finish.reason == common_pb2.FINISH_REASON_ERROR and finish.status_code == _REFUSED


def _request(number: int, sequence: Sequence) -> pb.SequenceRequest:
    order = sequence.order
    return pb.SequenceRequest(
        sequence=number,
        prompt_token_ids=order.prompt_token_ids,
        sampling=write_sampling(order.sampling),
        max_new_tokens=order.max_new_tokens,
        stop_token_ids=order.stop_token_ids,
        return_routed_experts=order.return_routed_experts,
        remaining_nanos=order.deadline.remaining_nanos,
        trace=common_pb2.TraceContext(traceparent=order.traceparent, tracestate=order.tracestate),
        trace_detail=common_pb2.TraceDetail.ValueType(order.trace_detail),
    )
