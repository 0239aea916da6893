"""Passes a sequence's tokens on as text, until the model, a limit or a stop string ends it."""

import asyncio
import time
from collections.abc import AsyncGenerator
from collections.abc import Sequence as Sequenced
from dataclasses import dataclass
from typing import NamedTuple

from moesaic.v1 import common_pb2, router_pb2
from services.gateway.continuation import Continuation
from services.gateway.micro_batcher import MicroBatcher
from services.gateway.sequence import Finish, Portion, Sequence
from services.wire.errors import DeadlinePassed, ServingError, Unavailable, from_code

# For the router's end of a sequence that a stop string has ended already; it brings the router's
# receipt.
FINISH_SECONDS = 1.0


class Piece(NamedTuple):  # made for each token, as Portion is
    """New text, and the tokens drawn since the last piece."""

    text: str
    token_ids: Sequenced[int]
    # One for each token where they were asked for, else empty.
    routed_experts: Sequenced[common_pb2.RoutedExperts]
    # Likewise.
    logprobs: Sequenced[common_pb2.PositionLogprobs] = ()
    # Where asked for, with the first piece: of the prompt's tokens from the second on.
    prompt_logprobs: Sequenced[common_pb2.PositionLogprobs] = ()
    # Which of the request's continuations it belongs to.
    choice: int = 0


@dataclass(frozen=True)
class ContinuationEnd:
    """How the continuation ended."""

    choice: int
    reason: common_pb2.FinishReason.ValueType
    stop_string: str | None
    num_tokens: int
    # Absent when the router did not say it in time after a stop string.
    finish: Finish | None
    # Spent on the last tokens after the router's end had come.
    detokenise_nanos: int

    @property
    def overflowed_pairs(self) -> int:
        """At the router that ended it, as far as it said."""
        return 0 if self.finish is None else self.finish.message.overflowed_pairs


class Relay:
    """Reads one sequence that a router has taken."""

    def __init__(
        self,
        sequence: Sequence,
        continuation: Continuation,
        dispatcher: MicroBatcher,
        *,
        num_tokens: int = 0,
        choice: int = 0,
    ) -> None:
        self._choice = choice
        self._sequence = sequence
        self._continuation = continuation
        self._dispatcher = dispatcher
        self._num_tokens = num_tokens  # those that the client had before are counted, too

    async def run(self) -> AsyncGenerator[Piece | ContinuationEnd, None]:
        """Pieces as they come, then the ending.

        Raises what ended the sequence instead: DeadlinePassed, or the router's own failure.
        """
        if self._continuation.stop_string is not None:  # in what the client had before
            yield self._ending(common_pb2.FINISH_REASON_STOP, None, 0)
            return
        # One timer for the whole request: one for each wait would cost more than reading its token.
        deadline = asyncio.get_running_loop().call_at(
            self._sequence.order.deadline.at_seconds, self._fail_late
        )
        try:
            while True:
                portion = await self._sequence.next_portion()
                started_nanos = time.monotonic_ns()
                piece, finish = self._read(portion), portion.finish
                detokenise_nanos = time.monotonic_ns() - started_nanos
                if piece.token_ids or piece.text:
                    yield piece
                if self._continuation.stop_string is not None:
                    finish = finish or await self._cancel()
                    yield self._ending(common_pb2.FINISH_REASON_STOP, finish, 0)
                    return
                if finish is not None:
                    yield self._ending(_reason(finish.message), finish, detokenise_nanos)
                    return
        finally:
            deadline.cancel()

    def _fail_late(self) -> None:
        self._sequence.fail(
            DeadlinePassed("the request's time was up while the model was generating")
        )

    def _read(self, portion: Portion) -> Piece:
        self._num_tokens += len(portion.token_ids)
        text = self._continuation.feed(portion.token_ids)
        if portion.finish is not None or self._has_last_token:
            text += self._continuation.finish()
        if not portion.logprobs and not self._choice:
            return Piece(text, portion.token_ids, portion.routed_experts)
        return Piece(
            *(text, portion.token_ids, portion.routed_experts),
            *(portion.logprobs, portion.prompt_logprobs, self._choice),
        )

    @property
    def _has_last_token(self) -> bool:
        """Whether no token follows. The rest of the text comes with it, and not with the router's
        end: a client that has all tokens has all text, and goes on elsewhere for the end alone.
        """
        sequence = self._sequence
        return (
            self._num_tokens == sequence.num_tokens
            and sequence.order.end_after(sequence.generated) is not None
        )

    async def _cancel(self) -> Finish | None:
        """End the sequence at the router, and wait briefly for its last word; tokens on the way are
        dropped.
        """
        self._dispatcher.give_up(self._sequence)
        try:
            async with asyncio.timeout(
                min(FINISH_SECONDS, self._sequence.order.deadline.remaining_seconds)
            ):
                while True:
                    portion = await self._sequence.next_portion()
                    if portion.finish is not None:
                        return portion.finish
        except (TimeoutError, ServingError):
            return None

    def _ending(
        self,
        reason: common_pb2.FinishReason.ValueType,
        finish: Finish | None,
        detokenise_nanos: int,
    ) -> ContinuationEnd:
        return ContinuationEnd(
            self._choice,
            reason,
            self._continuation.stop_string,
            self._num_tokens,
            finish,
            detokenise_nanos,
        )


def _reason(finish: router_pb2.SequenceFinish) -> common_pb2.FinishReason.ValueType:
    if finish.reason in (common_pb2.FINISH_REASON_STOP, common_pb2.FINISH_REASON_LENGTH):
        return finish.reason
    if finish.reason == common_pb2.FINISH_REASON_DEADLINE:
        raise DeadlinePassed("the request's time was up while the model was generating")
    if finish.reason == common_pb2.FINISH_REASON_ERROR:
        raise from_code(finish.status_code, finish.message)
    if finish.reason == common_pb2.FINISH_REASON_CANCELLED:
        raise Unavailable("the router gave the request up")
    raise ServingError(f"the router ended the request with an unknown reason ({finish.reason})")
