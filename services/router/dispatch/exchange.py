"""A layer's frames and replies as one exchange in compiled code.

What is left of one when something else comes up goes on as if it had been sent frame by frame.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch

from services.kernels.level import DTYPES
from services.router.dispatch.scatter import Attempt, Outgoing, SentFrame, most_in_frame
from services.router.engine.spans import NO_FRAME_SPAN, NO_LAYER_SPANS, FrameSpan, LayerSpans
from services.router.engine.step import Step
from services.router.peers.native_transport import _streams
from services.router.peers.service_behaviour import EnteredFrame
from services.router.peers.stream import ExpertStream, TimedReply
from services.router.times.receipt import ReplyTimes
from services.wire.frames import ELEMENT_TYPES
from services.wire.outcomes import Timings
from services.wire.received import ReceivedReply

# Of one frame, in nanoseconds: sent, arrived (0: it is not answered), decode, queue, compute and
# encode; then the pairs that were granted with it, or 0, and whether its stream has news.
Record: TypeAlias = tuple[int, int, int, int, int, int, int, bool]

# The loop's timers do not end the wait in compiled code, so they may fire so much later. What takes
# longer loses little by being awaited in the usual way.
MOST_WAIT_NANOS = 1_000_000
# As exchange.h numbers why a wait is over.
ANSWERED, LOOP_HAS_WORK = 0, 1


@dataclass(frozen=True)
class ExchangeForm:
    """What the rows of all layers are like."""

    hidden_size: int
    wire_dtype: torch.dtype
    checksums: bool

    @property
    def row_bytes(self) -> int:
        return self.hidden_size * self.wire_dtype.itemsize


class ReadyShare(NamedTuple):
    """What one service has of a layer, and where its frame is to be sent."""

    address: str
    stream: ExpertStream
    connection: "_streams.Stream"
    num_pairs: int
    num_rows: int
    num_experts: int


class _Share(NamedTuple):
    """The same once it is sent."""

    address: str
    stream: ExpertStream
    frame: EnteredFrame
    span: FrameSpan


class Exchange:
    """One layer's. It ends by `replies` and `combined` where it is complete, else by `give_up`.

    `native` has the pairs by service already, and is put into `idle` at the end.
    """

    def __init__(
        self,
        native: "_streams.Exchange",
        idle: "list[_streams.Exchange]",
        form: ExchangeForm,
        loop_descriptor: int,
        outgoing: Outgoing,
        attempt: Attempt,
    ) -> None:
        self._native = native
        self._idle = idle
        self._form = form
        self._loop_descriptor = loop_descriptor
        self._outgoing = outgoing
        self._attempt = attempt
        self._shares: list[_Share] = []
        self.is_complete = False  # all replies are there, as they should be

    def send(self, step: Step, shares: Sequence[ReadyShare], spans: LayerSpans) -> None:
        """Enter the frames with their services, and send them."""
        form, outgoing, frames = self._form, self._outgoing, []
        for share in shares:
            frame, span = share.stream.enter(share.num_pairs, share.num_experts), NO_FRAME_SPAN
            if spans is not NO_LAYER_SPANS:
                span = spans.begin_frame(
                    share.address,
                    step.clock.now(),
                    rows=share.num_rows,
                    pairs=share.num_pairs,
                    num_bytes=share.num_rows * form.row_bytes,
                )
            self._shares.append(_Share(share.address, share.stream, frame, span))
            frames.append(
                (share.connection, frame.frame_id, frame.remaining_nanos, span.traceparent)
            )
        _streams.send_frames(
            exchange=self._native,
            frames=frames,
            requests=step.row_requests,
            rows=outgoing.hidden.data_ptr(),
            row_bytes=form.row_bytes,
            layer=outgoing.layer,
            element_type=ELEMENT_TYPES[form.wire_dtype],
            checksums=form.checksums,
        )

    async def complete(self, meanwhile: Callable[[], None]) -> None:
        """Do own work, and wait for the replies, though not for long. The loop has its turn first,
        and again whenever it has anything to do.
        """
        try:
            meanwhile()
            until = time.perf_counter_ns() + MOST_WAIT_NANOS
            end = LOOP_HAS_WORK
            while end == LOOP_HAS_WORK:
                await asyncio.sleep(0)
                end = _streams.await_replies(
                    exchange=self._native, loop_descriptor=self._loop_descriptor, until_nanos=until
                )
        except BaseException:
            for frame in self.give_up():
                frame.release()
            raise
        self.is_complete = end == ANSWERED

    def replies(self) -> list[ReplyTimes]:
        """When the replies came; what is known of their services is learnt from it. Once."""
        replies = []
        for share, record in zip(self._shares, _streams.records(self._native), strict=True):
            times = _note_reply(share, record)
            share.span.end(times, attempt=1)
            share.stream.catch_up(record[6], has_news=record[7])
            replies.append(times)
        return replies

    def combined(self, weights: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """The layer's output like `hidden`, with the bits of ExactCombine."""
        weights = weights.contiguous()
        num_tokens, width = len(weights), hidden.shape[1]
        out = weights.new_empty(num_tokens, width, dtype=hidden.dtype)
        _streams.sum_replies(
            exchange=self._native,
            weights=weights.data_ptr(),
            out=out.data_ptr(),
            num_tokens=num_tokens,
            width=width,
            dtype=DTYPES[self._form.wire_dtype],
            weights_dtype=DTYPES[weights.dtype],
            out_dtype=DTYPES[hidden.dtype],
        )
        self._idle.append(self._native)
        return out

    def give_up(self) -> list[SentFrame]:
        """Its frames as if they had been sent one by one: some are answered, others in flight."""
        sent, outcomes = [], _streams.give_up(self._native)
        self._idle.append(self._native)
        most = most_in_frame(self._attempt.placement, self._form.row_bytes)
        frames = self._attempt.frames(self._outgoing.top_k, most, counts_rows=False)
        for share, pairs, (record, rows) in zip(self._shares, frames, outcomes, strict=True):
            answered = (
                share.stream.go_on_with(share.frame, record[0])
                if rows is None
                else _answered(share, record, rows, has_checksum=self._form.checksums)
            )
            sent.append(SentFrame(pairs, answered, share.span, share.address, 1))
        for share, (record, _) in zip(self._shares, outcomes, strict=True):
            share.stream.catch_up(record[6], has_news=record[7])
        return sent


def _note_reply(share: _Share, record: Record) -> ReplyTimes:
    sent, arrived, decode, queue, compute, encode, _, _ = record
    return share.stream.answered(
        share.frame,
        sent=sent,
        arrived=arrived,
        queue=queue,
        compute=decode + compute + encode,
        decode=decode,
    )


def _answered(
    share: _Share, record: Record, rows: bytes, *, has_checksum: bool
) -> "asyncio.Future[TimedReply]":
    answered: asyncio.Future[TimedReply] = asyncio.get_running_loop().create_future()
    reply = ReceivedReply(
        share.frame.frame_id, memoryview(rows), (), None, Timings(*record[2:6]), 0, has_checksum
    )
    answered.set_result(TimedReply(reply, _note_reply(share, record)))
    return answered
