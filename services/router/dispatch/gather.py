"""A layer's answers as they came back: rows to combine, and the pairs that must be sent again, with
the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import numpy as np
import torch

from moesaic.v1 import expert_pb2
from services.router.arrays import Indices
from services.router.dispatch.combine import Combination, Returned
from services.router.dispatch.failure import FailedPairs, ServiceFailure
from services.router.dispatch.scatter import Call
from services.router.engine.step import Step
from services.router.peers.call_failures import FrameLost
from services.router.peers.stream import TimedReply
from services.wire.errors import InvalidRequest, ServingError
from services.wire.outcomes import FrameError, PairFailure
from services.wire.received import ReceivedReply

Reason: TypeAlias = "expert_pb2.PairFailureReason.ValueType"

_REASONS = {
    expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED: ("not_hosted", "it is not hosted there any more"),
    expert_pb2.PAIR_FAILURE_REASON_OVERLOADED: ("overloaded", "its queue is full"),
    expert_pb2.PAIR_FAILURE_REASON_EXPIRED: ("expired", "the frame's time passed in its queue"),
}
_INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
_DATA_LOSS = grpc.StatusCode.DATA_LOSS.value[0]


@dataclass(slots=True)
class Gathered:
    """What an attempt came to; pairs in neither belong to sequences that have ended."""

    returned: list[Returned]
    failed: list[FailedPairs]


class _BadReply(Exception):
    """A reply that is not what was asked for; nothing of it is used."""


class Gather:
    """Checks answers; with `checksums` they must have one. What another attempt cannot mend ends
    its sequences.
    """

    def __init__(
        self, *, hidden_size: int, wire_dtype: torch.dtype, combine: Combination, checksums: bool
    ) -> None:
        self._hidden_size = hidden_size
        self._row_bytes = hidden_size * wire_dtype.itemsize
        self._wire_dtype = wire_dtype
        self._combine = combine
        self._checksums = checksums

    def __call__(
        self, step: Step, layer: int, answers: Sequence[tuple[Call, TimedReply | ServingError]]
    ) -> Gathered:
        """Sort the answers of one attempt; each call's span ends."""
        gathered = Gathered([], [])
        for call, answer in answers:
            if isinstance(answer, TimedReply):
                problem = self._take(step, layer, call, answer.reply, gathered)
                call.span.end(answer.times, attempt=call.attempt, failure=problem)
            else:
                reason = answer.reason if isinstance(answer, FrameLost) else "lost"
                gathered.failed.append(_whole(call, reason, str(answer)))
                call.span.end(None, attempt=call.attempt, failure=str(answer))
        return gathered

    def _take(
        self, step: Step, layer: int, call: Call, reply: ReceivedReply, into: Gathered
    ) -> str:
        """Take a reply apart; returns what is wrong with it, if anything."""
        if (
            self._checksums and not reply.has_checksum
        ):  # it, or the frame, was damaged where its parts begin and end
            message = f"{call.address} answered without the checksum that was asked for"
            into.failed.append(_whole(call, "corrupted", message))
            return message
        if reply.error is not None:
            return _refused(step, layer, call, reply.error, into)
        try:
            positions, failed = (
                call.share.positions,
                _failed_pairs(call, reply.failures) if reply.failures else (),
            )
            if failed:
                positions = np.delete(positions, np.concatenate([pairs for _, pairs in failed]))
            self._check_rows(call, reply, len(positions))
        except _BadReply as error:
            into.failed.append(_whole(call, "bad_reply", str(error)))
            return str(error)
        if len(positions):
            into.returned.append(
                Returned(call.share, positions, reply.rows_bytes, self._wire_dtype)
            )
        for reason, pairs in failed:
            _sort_out(step, layer, call, reason, pairs, into)
        return "some pairs were not computed" if failed else ""

    def _check_rows(self, call: Call, reply: ReceivedReply, num_computed: int) -> None:
        expected = self._combine.num_rows(call.share, num_computed)
        if len(reply.rows_bytes) == expected * self._row_bytes:
            return
        try:
            num_rows = reply.num_rows(self._wire_dtype, self._hidden_size)
        except InvalidRequest as error:
            raise _BadReply(f"{call.address} returned a broken reply: {error}") from error
        raise _BadReply(f"{call.address} returned {num_rows} rows where {expected} were due")


def _refused(step: Step, layer: int, call: Call, error: FrameError, into: Gathered) -> str:
    message = f"{call.address} refused a frame: {error.message}"
    if (
        error.status_code == _INVALID_ARGUMENT
    ):  # by no fault of the service: every other one would say the same
        expert = call.share.experts[0]
        step.fail(
            call.share.rows,
            ServingError(f"expert {expert} of layer {layer} could not be computed: {message}"),
        )
    else:
        into.failed.append(
            _whole(call, "corrupted" if error.status_code == _DATA_LOSS else "refused", message)
        )
    return message


def _failed_pairs(call: Call, failures: Sequence[PairFailure]) -> list[tuple[Reason, Indices]]:
    """The frame's pairs that were not computed, by reason. Raises _BadReply where they are not the
    frame's.
    """
    failed = [(failure.reason, np.asarray(failure.pairs, dtype=np.int64)) for failure in failures]
    named = np.concatenate([pairs for _, pairs in failed])
    if len(named) and named.max() >= len(call.share.positions):
        raise _BadReply(f"{call.address} named pairs that were not in the frame")
    if len(np.unique(named)) < len(named):
        raise _BadReply(f"{call.address} named a pair twice")
    return failed


def _sort_out(
    step: Step, layer: int, call: Call, reason: Reason, pairs: Indices, into: Gathered
) -> None:
    if not len(pairs):
        return
    share = call.share
    subject = (
        f"expert {share.experts[pairs[0]]} of layer {layer} was not computed by {call.address}"
    )
    if reason in _REASONS:
        word, why = _REASONS[reason]
        failure = ServiceFailure(call.address, word, f"{subject}: {why}")
        into.failed.append(FailedPairs(share.positions[pairs], failure))
    else:  # cancelled, of which the sequences have ended already, or a reason that is none
        step.fail(
            share.rows[share.pair_rows[pairs]], ServingError(f"{subject}: its reason is {reason}")
        )


def _whole(call: Call, reason: str, message: str) -> FailedPairs:
    return FailedPairs(call.share.positions, ServiceFailure(call.address, reason, message))
