"""Expert services without a network: they decode each frame as a service would, and answer it as a
test tells them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from moesaic.v1 import expert_pb2
from services.router.engine.scheduler import ScheduledTokens
from services.router.engine.sequence import Order, Sequence
from services.router.engine.spans import Experts, FrameSpan, LayerSpans, StepSpans
from services.router.engine.step import Step
from services.router.peers.pace import Pace
from services.router.peers.stream import TimedReply
from services.router.peers.trust import Trust
from services.router.times.receipt import ReplyTimes, SequenceReceipt
from services.wire.errors import ServingError
from services.wire.frames import decode_request, decode_response, encode_reply
from services.wire.outcomes import PairFailure
from services.wire.received import ReceivedFrame, ReceivedReply
from services.wire.sampling import Sampling
from tests.router.behaviours import nothing

HIDDEN = 8

# What is to be said otherwise than with the computed rows: arguments of encode_reply. It may raise
# the error that the frame ends with; None leaves it unanswered.
Behaviour = Callable[[ReceivedFrame, torch.Tensor], dict[str, Any] | None]


def well(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
    """Answer as it should be."""
    return {}


def not_hosted(*pairs: int) -> PairFailure:
    """These pairs' experts are hosted elsewhere."""
    return PairFailure(expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED, pairs)


def overloaded(*pairs: int) -> PairFailure:
    """The queue had no room for these pairs."""
    return PairFailure(expert_pb2.PAIR_FAILURE_REASON_OVERLOADED, pairs)


def busy(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
    """Answer that the queue had no room for any pair."""
    return {"rows": None, "failures": [overloaded(*range(len(frame.pair_rows)))]}


def expired(*pairs: int) -> PairFailure:
    """The time of these pairs passed in the queue."""
    return PairFailure(expert_pb2.PAIR_FAILURE_REASON_EXPIRED, pairs)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One after the other, frame by frame, and well when there are no more."""
    turns = iter(behaviours)
    return lambda frame, rows: next(turns, well)(frame, rows)


class ScriptedStream:
    """Multiplies rows by their expert's `scale` [experts, hidden]. With `holds` answers wait to be
    asked for.
    """

    def __init__(
        self, scale: torch.Tensor, behaviour: Behaviour = well, *, holds: bool = False
    ) -> None:
        self._scale = scale
        self._holds = holds
        self.behaviour = behaviour
        self.frames: list[ReceivedFrame] = []
        self.waiting: list[Callable[[], None]] = []
        self.answers: list[asyncio.Future[TimedReply]] = []

    def send(
        self, encode: Callable[[int, int], bytes], num_pairs: int, num_experts: int
    ) -> "asyncio.Future[TimedReply]":
        answered: asyncio.Future[TimedReply] = asyncio.get_running_loop().create_future()
        frame = decode_request(encode(len(self.frames), 10**9))
        assert isinstance(frame, ReceivedFrame)
        assert len(frame.pair_rows) == num_pairs
        assert len(np.unique(frame.pair_experts)) == num_experts
        self.frames.append(frame)
        self.answers.append(answered)
        if self._holds:
            self.waiting.append(lambda: self._answer(frame, answered))
        else:
            asyncio.get_running_loop().call_soon(self._answer, frame, answered)
        return answered

    def _answer(self, frame: ReceivedFrame, answered: "asyncio.Future[TimedReply]") -> None:
        try:
            reply = self._reply(frame)
        except ServingError as error:
            answered.set_exception(error)
        else:
            if reply is not None:
                answered.set_result(TimedReply(reply, ReplyTimes("a:1", 0, 1, 0, 0)))

    def _reply(self, frame: ReceivedFrame) -> ReceivedReply | None:
        answer = self.answer_to(frame)
        return None if answer is None else decode_response(answer).reply

    def answer_to(self, frame: ReceivedFrame) -> bytes | None:
        """The message that answers a frame, if any does."""
        computed = self.computed(frame, np.arange(len(frame.pair_rows)))
        otherwise = self.behaviour(frame, computed)
        if otherwise is None:
            return None
        answer: dict[str, Any] = {"rows": computed, "checksum": frame.has_checksum}
        return encode_reply(frame_id=frame.frame_id, **answer | otherwise)

    def computed(self, frame: ReceivedFrame, pairs: np.ndarray) -> torch.Tensor:
        """The rows to return where only these pairs are computed."""
        pair_rows = torch.from_numpy(frame.pair_rows[pairs].astype(np.int64))
        experts = torch.from_numpy(frame.pair_experts[pairs].astype(np.int64))
        computed = frame.rows(HIDDEN)[pair_rows] * self._scale[experts]
        if not len(frame.pair_weights) or not len(pairs):
            return computed
        sums = torch.zeros(frame.num_rows, HIDDEN)
        for row, weight, output in zip(
            pair_rows.tolist(), frame.pair_weights[pairs].tolist(), computed, strict=True
        ):
            sums[row] += weight * output.float()
        return sums.to(computed.dtype)


@dataclass
class ScriptedExperts:
    """A service of scripted streams, one for each lane."""

    address: str
    streams: list[ScriptedStream]
    pace: Pace = field(default_factory=Pace)
    trust: Trust = field(default_factory=lambda: Trust("a:1", nothing))

    def __post_init__(self) -> None:
        self.trust.pass_trial()


class RecordedSpans(StepSpans, LayerSpans, FrameSpan):
    """Records how each frame ended: attempt and failure."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, str]] = []

    def begin_layer(self, layer: int, started: int) -> LayerSpans:
        return self

    def begin_frame(
        self, address: str, started: int, *, rows: int, pairs: int, num_bytes: int, experts: Experts
    ) -> FrameSpan:
        return self

    def end(
        self, *arguments: object, attempt: int = 0, failure: str = "", **others: object
    ) -> None:
        if attempt:
            self.frames.append((attempt, failure))


def step_of(lengths: list[int]) -> Step:
    """A step of so many rows of each sequence; sequences are numbered from 0."""
    sequences = [
        Sequence(n, Order((0,) * length, Sampling(), 1), SequenceReceipt())
        for n, length in enumerate(lengths)
    ]
    return Step(
        0,
        [
            ScheduledTokens(sequence, length)
            for sequence, length in zip(sequences, lengths, strict=True)
        ],
    )
