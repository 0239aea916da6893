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
from services.router.dispatch.scatter import SentFrame
from services.router.engine.step import Step
from services.router.peers.frame_lost import FrameLost
from services.router.peers.stream import TimedReply
from services.wire.errors import InvalidRequest, ServingError
from services.wire.outcomes import PASSING_REASONS, FrameError, PairFailure
from services.wire.quoting import peers_words
from services.wire.received import ReceivedReply

Answer: TypeAlias = TimedReply | ServingError
Reason: TypeAlias = "expert_pb2.PairFailureReason.ValueType"

_WHY = {
    expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED: "it is not hosted there any more",
    expert_pb2.PAIR_FAILURE_REASON_OVERLOADED: "its queue is full",
    expert_pb2.PAIR_FAILURE_REASON_EXPIRED: "the frame's time passed in its queue",
}
_DATA_LOSS = grpc.StatusCode.DATA_LOSS.value[0]
# Refusals that say something of the service, or of the wire, and nothing of the frame.
_PASSING = frozenset(
    status.value[0]
    for status in (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)


@dataclass(slots=True)
class Gathered:
    """What an attempt came to; pairs in neither belong to sequences that have ended."""

    returned: list[Returned]
    failed: list[FailedPairs]


async def answers_to(sent: Sequence[SentFrame]) -> list[tuple[SentFrame, Answer]]:
    """Wait for the answer to each frame, if only an error; they are given up when that is cut
    short.
    """
    answers: list[tuple[SentFrame, Answer]] = []
    try:
        for frame in sent:
            try:
                answers.append((frame, await frame.answered))
            except (
                ServingError
            ) as error:  # by its traceback it would keep itself, and the layer's rows
                answers.append((frame, error.with_traceback(None)))
    finally:
        for frame in sent:  # whatever is not answered by now is not waited for
            frame.release()
    return answers


class _BadReply(Exception):
    """A reply that is not what was asked for; nothing of it is used."""


class Gather:
    """Checks answers; with `checksums` they must have one. Whatever is wrong with one, its pairs
    have failed and nothing more: no service's word ends a sequence.
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
        self, step: Step, layer: int, answers: Sequence[tuple[SentFrame, Answer]]
    ) -> Gathered:
        """Sort the answers of one attempt; each frame's span ends."""
        gathered = Gathered([], [])
        for frame, answer in answers:
            if isinstance(answer, TimedReply):
                problem = self._take(step, layer, frame, answer.reply, gathered)
                frame.span.end(answer.times, attempt=frame.attempt, failure=problem)
            else:
                reason = answer.reason if isinstance(answer, FrameLost) else "lost"
                gathered.failed.append(_all_failed(frame, reason, str(answer)))
                lost_at = answer.at if isinstance(answer, FrameLost) else None
                frame.span.end(None, attempt=frame.attempt, failure=str(answer), lost_at=lost_at)
        return gathered

    def _take(
        self, step: Step, layer: int, frame: SentFrame, reply: ReceivedReply, into: Gathered
    ) -> str:
        """Take a reply apart; returns what is wrong with it, if anything."""
        if (
            self._checksums and not reply.has_checksum
        ):  # it, or the frame, was damaged where its parts begin and end
            message = f"{frame.address} answered without the checksum that was asked for"
            into.failed.append(_all_failed(frame, "corrupted", message))
            return message
        if reply.error is not None:
            return _take_refusal(frame, reply.error, into)
        try:
            positions, failed = (
                frame.pairs.positions,
                _failed_pairs(frame, reply.failures) if reply.failures else (),
            )
            if failed:
                positions = np.delete(positions, np.concatenate([pairs for _, pairs in failed]))
            self._check_rows(frame, reply, len(positions))
        except _BadReply as error:
            into.failed.append(_all_failed(frame, "bad_reply", str(error)))
            return str(error)
        if len(positions):
            into.returned.append(
                Returned(frame.pairs, positions, reply.rows_bytes, self._wire_dtype, frame.address)
            )
        for reason, pairs in failed:
            _sort_out(step, layer, frame, reason, pairs, into)
        return "some pairs were not computed" if failed else ""

    def _check_rows(self, frame: SentFrame, reply: ReceivedReply, num_computed: int) -> None:
        expected = self._combine.num_rows(frame.pairs, num_computed)
        if len(reply.rows_bytes) == expected * self._row_bytes:
            return
        try:
            num_rows = reply.num_rows(self._wire_dtype, self._hidden_size)
        except InvalidRequest as error:
            raise _BadReply(f"{frame.address} returned a broken reply: {error}") from error
        raise _BadReply(f"{frame.address} returned {num_rows} rows where {expected} were due")


def _take_refusal(frame: SentFrame, error: FrameError, into: Gathered) -> str:
    code = error.status_code
    message = f"{frame.address} refused a frame: {peers_words(error.message)}"
    verdict = "" if code in _PASSING else f"refused with code {code}"
    reason = "corrupted" if code == _DATA_LOSS else "refused"
    into.failed.append(_all_failed(frame, reason, message, verdict))
    return message


def _failed_pairs(
    frame: SentFrame, failures: Sequence[PairFailure]
) -> list[tuple[Reason, Indices]]:
    """The frame's pairs that were not computed, by reason. Raises _BadReply where they are not the
    frame's.
    """
    failed = [(failure.reason, np.asarray(failure.pairs, dtype=np.int64)) for failure in failures]
    named = np.concatenate([pairs for _, pairs in failed])
    if len(named) and named.max() >= len(frame.pairs.positions):
        raise _BadReply(f"{frame.address} named pairs that were not in the frame")
    if len(np.unique(named)) < len(named):
        raise _BadReply(f"{frame.address} named a pair twice")
    return failed


def _sort_out(
    step: Step, layer: int, frame: SentFrame, reason: Reason, failed: Indices, into: Gathered
) -> None:
    if not len(failed):
        return
    pairs = frame.pairs
    subject = (
        f"expert {pairs.experts[failed[0]]} of layer {layer} was not computed by {frame.address}"
    )
    if reason == expert_pb2.PAIR_FAILURE_REASON_CANCELLED:
        # Of sequences that have ended; nobody cancelled the others.
        failed = failed[step.goes_on(pairs.rows[pairs.pair_rows[failed]])]
        if not len(failed):
            return
    word = PASSING_REASONS.get(reason, "bad_reply")
    why = _WHY.get(reason, f"its reason is {reason}")
    verdict = "" if reason in PASSING_REASONS else f"not computed for reason {reason}"
    failure = ServiceFailure(frame.address, word, f"{subject}: {why}", verdict)
    into.failed.append(FailedPairs(pairs.positions[failed], failure))


def _all_failed(frame: SentFrame, reason: str, message: str, verdict: str = "") -> FailedPairs:
    failure = ServiceFailure(frame.address, reason, message, verdict)
    return FailedPairs(frame.pairs.positions, failure)
