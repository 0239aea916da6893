"""A layer's frames and replies as one exchange in compiled code.

What is left of one when something else comes up goes on as if it had been sent frame by frame.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch

from services.kernels.level import DTYPES
from services.router.dispatch.combine import Returned, Sums
from services.router.dispatch.frame_pairs import FramePairs
from services.router.dispatch.scatter import Attempt, Outgoing, SentFrame
from services.router.engine.spans import NO_FRAME_SPAN, NO_LAYER_SPANS, FrameSpan, LayerSpans
from services.router.engine.step import Step
from services.router.peers.entered_frame import EnteredFrame, ExchangeRecord
from services.router.peers.native_transport import _streams
from services.router.peers.stream import ExpertStream, TimedReply
from services.router.times.receipt import ReplyTimes
from services.wire.frames import ELEMENT_TYPES
from services.wire.outcomes import Timings
from services.wire.received import ReceivedReply

# The loop's timers do not end the wait in compiled code, so they may fire so much later. What takes
# longer loses little by being awaited in the usual way.
MOST_WAIT_NANOS = 1_000_000
# As exchange.h numbers why a wait is over.
ANSWERED, LOOP_HAS_WORK, TIME_IS_UP = 0, 1, 2


@dataclass(frozen=True)
class ExchangeForm:
    """What the rows of all layers are like, and how long replies are waited for at most."""

    hidden_size: int
    wire_dtype: torch.dtype
    checksums: bool
    most_wait_nanos: int

    @cached_property
    def row_bytes(self) -> int:
        return self.hidden_size * self.wire_dtype.itemsize

    @cached_property
    def element_type(self) -> int:
        return ELEMENT_TYPES[self.wire_dtype]


class Share(NamedTuple):
    """What one service has of a layer: its frame, with so many rows, and the stream that it is
    entered with.
    """

    address: str
    stream: ExpertStream
    frame: EnteredFrame
    num_rows: int


@dataclass(slots=True)
class LoopTurns:
    """When an exchange last let the loop have its turn, by the monotonic clock."""

    last: int = 0


@dataclass(frozen=True)
class LaidOut:
    """The frames of an attempt, for who asks: compiled code has them without."""

    attempt: Attempt
    top_k: int
    row_bytes: int

    @cached_property
    def frames(self) -> list[FramePairs]:
        return self.attempt.frames(self.top_k, self.row_bytes, counts_rows=False)

    def experts_of(self, number: int) -> list[int]:
        """The experts of one of them, each once."""
        return self.frames[number].each_expert()


class Exchange:
    """One layer's. Where it is complete it ends by `replies` and `combined`, and `returned` where
    the sums are not finite, or by `replies` and `returned`; else by `give_up`.

    `native` has the pairs by service already, and is put into `idle` at the end.
    """

    __slots__ = (
        "_attempt",
        "_form",
        "_idle",
        "_loop_descriptor",
        "_native",
        "_outgoing",
        "_shares",
        "_spans",
        "_turns",
        "is_complete",
    )

    def __init__(
        self,
        native: "_streams.Exchange",
        idle: "list[_streams.Exchange]",
        form: ExchangeForm,
        loop_descriptor: int,
        turns: LoopTurns,
        shares: Sequence[Share],
        outgoing: Outgoing,
        attempt: Attempt,
    ) -> None:
        self.is_complete = False  # all replies are there, as they should be
        self._native = native
        self._idle = idle
        self._form = form
        self._loop_descriptor = loop_descriptor
        self._turns = turns
        self._shares = shares
        self._outgoing = outgoing
        self._attempt = attempt
        self._spans: Sequence[FrameSpan] = ()

    @property
    def addresses(self) -> list[str]:
        """Those of the services that it is with."""
        return [share.address for share in self._shares]

    def send(self, step: Step, spans: LayerSpans) -> None:
        """Send the frames, all at once."""
        form, outgoing, now = self._form, self._outgoing, step.clock.now()
        if spans is not NO_LAYER_SPANS:
            frames = LaidOut(self._attempt, outgoing.top_k, form.row_bytes)
            self._spans = [
                spans.begin_frame(
                    share.address,
                    now,
                    rows=share.num_rows,
                    pairs=share.frame.num_pairs,
                    num_bytes=share.num_rows * form.row_bytes,
                    experts=partial(frames.experts_of, number),
                )
                for number, share in enumerate(self._shares)
            ]
        _streams.send_frames(
            exchange=self._native,
            frames=[share.frame for share in self._shares],
            traceparents=[span.traceparent for span in self._spans] if self._spans else None,
            requests=step.row_requests,
            rows=outgoing.hidden.data_ptr(),
            row_bytes=form.row_bytes,
            layer=outgoing.layer,
            element_type=form.element_type,
            checksums=form.checksums,
        )

    async def complete(self, meanwhile: Callable[[], None]) -> None:
        """Do own work, and wait for the replies, though not for long. The loop has its turn while
        they are not there, and again whenever it has anything to do.
        """
        try:
            meanwhile()
            # What came by now is read here at less cost than in the loop's turn.
            end, now = self._wait(until=0), time.perf_counter_ns()
            # Where replies are always there at once it has a turn all the same.
            if end != ANSWERED or now - self._turns.last > MOST_WAIT_NANOS:
                self._turns.last = now
                await asyncio.sleep(0)
            until = now + self._form.most_wait_nanos
            if end == TIME_IS_UP:
                end = self._wait(until)
            while end == LOOP_HAS_WORK:
                await asyncio.sleep(0)
                end = self._wait(until)
        except BaseException:
            for frame in self.give_up():
                frame.release()
            raise
        self.is_complete = end == ANSWERED

    def _wait(self, until: int) -> int:
        return _streams.await_replies(
            exchange=self._native, loop_descriptor=self._loop_descriptor, until_nanos=until
        )

    def replies(self) -> list[ReplyTimes]:
        """When the replies came; what is known of their services is learnt from it. Once."""
        replies = [
            share.stream.answered(share.frame, record)
            for share, record in zip(self._shares, _streams.records(self._native), strict=True)
        ]
        for span, times in zip(self._spans, replies, strict=False):
            span.end(times, attempt=1)
        return replies

    def combined(self, weights: torch.Tensor, hidden: torch.Tensor) -> Sums:
        """The layer's output like `hidden`, with the bits of ExactCombine; where it is not finite,
        `returned` has what it was made of.
        """
        weights = weights.contiguous()
        num_tokens, width = weights.shape[0], hidden.shape[1]
        out = weights.new_empty(num_tokens, width, dtype=hidden.dtype)
        are_finite = _streams.sum_replies(
            exchange=self._native,
            weights=weights.data_ptr(),
            out=out.data_ptr(),
            num_tokens=num_tokens,
            width=width,
            dtype=DTYPES[self._form.wire_dtype],
            weights_dtype=DTYPES[weights.dtype],
            out_dtype=DTYPES[hidden.dtype],
        )
        if are_finite:
            self._idle.append(self._native)
        return Sums(out, are_finite)

    def returned(self) -> list[Returned]:
        """What the services made of the pairs."""
        outcomes = _streams.give_up(self._native)
        self._idle.append(self._native)
        dtype = self._form.wire_dtype
        return [
            Returned(pairs, pairs.positions, memoryview(rows), dtype, share.address)
            for share, pairs, (_, rows) in zip(self._shares, self._frames(), outcomes, strict=True)
            if rows is not None
        ]

    def give_up(self) -> list[SentFrame]:
        """Its frames as if they had been sent one by one: some are answered, others in flight."""
        outcomes = _streams.give_up(self._native)
        self._idle.append(self._native)
        frames = self._frames()
        spans = self._spans or [NO_FRAME_SPAN] * len(frames)
        return [
            SentFrame(pairs, self._answer(share, *outcome), span, share.address, 1)
            for share, pairs, span, outcome in zip(
                self._shares, frames, spans, outcomes, strict=True
            )
        ]

    def _frames(self) -> list[FramePairs]:
        return LaidOut(self._attempt, self._outgoing.top_k, self._form.row_bytes).frames

    def _answer(
        self, share: Share, record: ExchangeRecord, rows: bytes | None
    ) -> "asyncio.Future[TimedReply]":
        if rows is None:
            return share.stream.go_on(share.frame, record)
        answered: asyncio.Future[TimedReply] = asyncio.get_running_loop().create_future()
        timings, has_checksum = Timings(*record[2:6]), self._form.checksums
        number = share.frame.frame_id
        reply = ReceivedReply(number, memoryview(rows), (), None, timings, 0, has_checksum)
        answered.set_result(TimedReply(reply, share.stream.answered(share.frame, record)))
        return answered
