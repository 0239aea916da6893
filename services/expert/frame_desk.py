"""The frames of one stream: taken in, handed to the batcher, and each answered once."""

from collections.abc import Callable
from typing import Protocol

from moesaic.v1 import expert_pb2
from services.expert import metrics, spans
from services.expert.admission import Contract, Slots, admit
from services.expert.admitted_frame import AdmittedFrame, FrameAnswer
from services.expert.batcher import Batcher
from services.runtime.failures import failure_of
from services.wire.bad_frame import BadFrame
from services.wire.frames import decode_request, encode_reply
from services.wire.outcomes import FrameError
from services.wire.received import Cancel, ReceivedFrame


class Credit(Protocol):
    """Counts the pairs that the stream's sender may have unanswered."""

    def take(self, num_pairs: int) -> bool:
        """Count pairs that were sent; whether the credit held them."""

    def grant(self, num_pairs: int) -> int:
        """Let as many pairs be sent anew; all that were granted, for the answer to say, or 0 where
        that is added to it on its way.
        """


class FrameDesk:
    """Reads a stream's messages and makes its answers, whatever carries them."""

    def __init__(
        self,
        batcher: Batcher,
        contract: Contract,
        slots: Slots,
        credit: Credit,
        send: Callable[[bytes], None],
    ) -> None:
        self._batcher = batcher
        self._contract = contract
        self._slots = slots
        self._credit = credit
        self._send = send
        self._unanswered: set[AdmittedFrame] = set()

    @property
    def has_unanswered(self) -> bool:
        """Whether a frame waits for its answer."""
        return bool(self._unanswered)

    def receive(self, data: bytes, received: int) -> bool:
        """Take in a message that came at this time of the monotonic clock; whether it is one that
        is answered, now or later.

        Raises InvalidRequest for what is no message.
        """
        try:
            request = decode_request(data)
            if isinstance(request, Cancel):
                self._cancel(request)
                return False
            self._submit(request, len(data), received)
        except BadFrame as error:
            self._credit.take(error.num_pairs)
            metrics.record_invalid_frame()
            self._refuse(error)
        return True

    def abandon(self) -> None:
        """The stream is gone: nobody waits for answers."""
        for admitted in self._unanswered:
            self._batcher.drop(admitted)
        self._unanswered.clear()

    def _refuse(self, error: BadFrame) -> None:
        message = encode_reply(
            frame_id=error.frame_id,
            error=FrameError(error.status.value[0], str(error)),
            granted_pairs=self._credit.grant(error.num_pairs),
            checksum=error.has_checksum,
        )
        self._send(message)

    def _submit(self, frame: ReceivedFrame, num_bytes: int, received: int) -> None:
        try:
            admitted = admit(frame, num_bytes, self._contract, self._slots, received, self._deliver)
        except BadFrame:
            raise
        except Exception as error:  # the boundary of one frame: the stream goes on
            failure, num_pairs = failure_of(error, "taking a frame in"), len(frame.pair_rows)
            raise BadFrame(
                frame.frame_id,
                str(failure),
                num_pairs,
                status=failure.status,
                has_checksum=frame.has_checksum,
            ) from error
        self._unanswered.add(admitted)
        if self._credit.take(len(frame.pair_rows)):
            self._batcher.submit(admitted)
        else:
            admitted.fail(expert_pb2.PAIR_FAILURE_REASON_OVERLOADED)

    def _cancel(self, cancel: Cancel) -> None:
        unwanted = [admitted for admitted in self._unanswered if admitted.forget(cancel.requests)]
        for admitted in unwanted:
            if self._batcher.drop(admitted):
                admitted.fail(expert_pb2.PAIR_FAILURE_REASON_CANCELLED)

    def _deliver(self, admitted: AdmittedFrame, answer: FrameAnswer) -> None:
        if admitted not in self._unanswered:
            return  # the stream is gone
        self._unanswered.remove(admitted)
        granted_pairs = self._credit.grant(len(admitted.frame.pair_rows))
        try:
            message = _encode(admitted, answer, granted_pairs)
        except Exception as error:  # noqa: BLE001 -- the boundary of one frame: its sender has to hear of it
            failure = failure_of(error, "answering a frame")
            answer = FrameAnswer(
                answer.timings, error=FrameError(failure.status.value[0], str(failure))
            )
            message = _encode(admitted, answer, granted_pairs)
        self._send(message)
        metrics.record_answer(admitted, answer)
        spans.record_frame(admitted, answer)


def _encode(admitted: AdmittedFrame, answer: FrameAnswer, granted_pairs: int) -> bytes:
    return encode_reply(
        frame_id=admitted.frame.frame_id,
        rows=answer.rows,
        failures=answer.failures,
        error=answer.error,
        timings=answer.timings,
        batch_frames=answer.batch_frames,
        granted_pairs=granted_pairs,
        checksum=admitted.frame.has_checksum,
    )
