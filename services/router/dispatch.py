"""Scatter and gather: a layer's rows go to the services that host its experts, and come back to be combined."""

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Sequenced
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from moesaic.v1 import expert_pb2
from services.router.capacity import capacity_of, overflowed
from services.router.combine import Combine, Returned
from services.router.expert_stream import Answer, ExpertStream
from services.router.host_copy import to_host
from services.router.receipt import ReplyTimes
from services.router.shares import NOBODY, Indices, Share, Words, shares_of
from services.router.spans import NO_CALL_SPAN, NO_LAYER_SPANS, CallSpan, LayerSpans
from services.router.step import Step
from services.wire.errors import InvalidRequest, Overloaded, ServingError, Unavailable
from services.wire.frames import ReceivedReply, Weights, encode_frame

DROPPED = -1
# Far below gRPC's limit on messages, so that one frame does not hold up the others for long.
MAX_FRAME_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Placement:
    """Who computes what, as the dispatcher sees it; replaced as a whole when hosting changes.

    `owners` has for each layer the service that computes each expert, or NOBODY; `streams` has a stream by service and
    lane; `max_frame_bytes` is the least that any of the services allows.
    """

    owners: Mapping[int, Indices]
    streams: Sequenced[Sequenced[ExpertStream]]
    addresses: Sequenced[str]
    max_frame_bytes: int = MAX_FRAME_BYTES


@dataclass(slots=True)
class _Outgoing:
    """A layer's input in the host's memory: rows [tokens, hidden], experts and weights of [tokens x k] pairs."""

    hidden: torch.Tensor
    experts: Indices
    weights: Weights | None  # where services sum
    top_k: int


@dataclass(slots=True)
class _Call:
    share: Share
    answered: "asyncio.Future[Answer]"
    span: CallSpan
    address: str


class Dispatcher:
    """Computes a layer's routed experts on the services of the current placement.

    Rows travel in `wire_dtype`. `capacity_factor`, where given, turns the capacity guard on.
    """

    def __init__(
        self,
        *,
        num_experts: int,
        hidden_size: int,
        wire_dtype: torch.dtype,
        combine: Combine,
        capacity_factor: float | None = None,
    ) -> None:
        self._num_experts = num_experts
        self._hidden_size = hidden_size
        self._wire_dtype = wire_dtype
        self._combine = combine
        self._capacity_factor = capacity_factor
        self.placement = Placement({}, [], [])

    async def compute(
        self,
        step: Step,
        layer: int,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weights: torch.Tensor,
        meanwhile: Callable[[], None] | None,
    ) -> torch.Tensor:
        """The weighted sum of each row's experts, [tokens, hidden].

        How they are summed, and how far the sum depends on who computed a row, is the combine's. Rows whose experts
        nobody can compute end their sequences; the step goes on.
        """
        gate_began = step.clock.ended
        scatter_began = step.clock.charge("gate")
        spans = step.spans.begin_layer(layer, gate_began)
        outgoing = await self._on_host(step, layer, hidden, index, weights)
        calls = self._scatter(step, layer, outgoing, spans)
        scatter_ended = step.clock.charge("encode")
        try:
            if meanwhile is not None:
                meanwhile()
                step.clock.charge("dense")
            answers = [(call, await _answer_of(call)) for call in calls]
        finally:
            for call in calls:  # whatever is not answered by now is not waited for
                call.answered.cancel()
        times = [answer.times for _, answer in answers if isinstance(answer, Answer)]
        lost = next((call.address for call, answer in answers if isinstance(answer, ServingError)), None)
        gathered = step.clock.charge_gather(times, lost)
        combined = self._combine(self._gather(step, layer, answers), weights, hidden)
        ended = step.clock.charge("combine")
        if spans is not NO_LAYER_SPANS:
            self._record(spans, times, (gate_began, scatter_began, scatter_ended, gathered, ended))
        return combined

    async def _on_host(
        self, step: Step, layer: int, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> _Outgoing:
        if len(hidden) > step.num_tokens:  # rows beyond are padding and are not sent
            hidden, index, weights = hidden[: step.num_tokens], index[: step.num_tokens], weights[: step.num_tokens]
        wanted = [hidden.to(self._wire_dtype), index]
        if self._combine.sums_on_services:
            wanted.append(weights.float())
        host_hidden, host_index, *host_weights = wanted if hidden.is_cpu else await to_host(*wanted)
        experts: Indices = host_index.numpy().reshape(-1).astype(np.int64, copy=False)
        if step.wants_routed_experts:
            step.routed[layer] = host_index[step.last_rows]
        top_k = index.shape[1]
        if self._capacity_factor is not None:
            experts = self._guard(step, experts, top_k)
        sent = _sendable(step, layer, host_weights[0].reshape(-1).numpy(), top_k) if host_weights else None
        return _Outgoing(host_hidden.contiguous(), experts, sent, top_k)

    def _guard(self, step: Step, experts: Indices, top_k: int) -> Indices:
        assert self._capacity_factor is not None
        capacity = capacity_of(self._capacity_factor, step.num_tokens, top_k, self._num_experts)
        dropped = overflowed(experts, self._num_experts, capacity)
        for work in step.row_sequences[dropped // top_k]:
            step.batch[work].sequence.overflowed_pairs += 1
        guarded = experts.copy()
        guarded[dropped] = DROPPED
        return guarded

    def _scatter(self, step: Step, layer: int, outgoing: _Outgoing, spans: LayerSpans) -> list[_Call]:
        placement, calls = self.placement, []
        # Half of a frame is for what surrounds the rows: indices, request numbers, headers.
        most = max(1, placement.max_frame_bytes // 2 // (self._hidden_size * self._wire_dtype.itemsize))
        owners, by_row = placement.owners[layer], self._combine.sums_on_services
        for share in shares_of(outgoing.experts, owners, outgoing.top_k, most, counts_rows=by_row):
            if share.service == NOBODY:
                error = Unavailable(f"no live service hosts expert {share.experts[0]} of layer {layer}")
                step.fail(share.rows, error)
                continue
            address = placement.addresses[share.service]
            num_rows, num_pairs = len(share.rows), len(share.positions)
            span = NO_CALL_SPAN
            if spans is not NO_LAYER_SPANS:
                num_bytes = num_rows * self._hidden_size * self._wire_dtype.itemsize
                span = spans.begin_call(address, step.clock.now(), rows=num_rows, pairs=num_pairs, num_bytes=num_bytes)
            encode = _encoder(share, layer, outgoing, step, span.traceparent)
            answered = placement.streams[share.service][step.lane].send(encode, num_pairs)
            calls.append(_Call(share, answered, span, address))
        return calls

    def _gather(
        self,
        step: Step,
        layer: int,
        answers: Sequenced[tuple[_Call, Answer | ServingError]],
    ) -> list[Returned]:
        returned: list[Returned] = []
        for call, answer in answers:
            times = answer.times if isinstance(answer, Answer) else None
            try:
                if isinstance(answer, ServingError):
                    raise answer
                computed = self._returned(step, layer, call, answer.reply)
            except ServingError as error:
                call.span.end(times, attempt=1, failure=str(error))
                step.fail(call.share.rows, _named(error, layer, call.share.experts))
            else:
                is_whole = len(computed.positions) == len(call.share.positions)
                call.span.end(times, attempt=1, failure="" if is_whole else "some pairs were not computed")
                returned.append(computed)
        return returned

    def _returned(self, step: Step, layer: int, call: _Call, reply: ReceivedReply) -> Returned:
        """What was computed of the share; the sequences of the other pairs end.

        Raises ServingError when nothing of the reply can be used.
        """
        if reply.error is not None:
            raise ServingError(f"{call.address} refused a frame: {reply.error.message}")
        positions = call.share.positions
        if reply.failures:
            positions = positions[self._is_computed(step, layer, call, reply)]
        try:
            num_rows = reply.num_rows(self._wire_dtype, self._hidden_size)
        except InvalidRequest as error:  # the service's fault, not the client's
            raise ServingError(f"{call.address} returned a broken reply: {error}") from error
        expected = self._combine.num_rows(call.share, len(positions))
        if num_rows != expected:
            raise ServingError(f"{call.address} returned {num_rows} rows where {expected} were due")
        return Returned(call.share, positions, reply.rows_bytes, self._wire_dtype)

    @staticmethod
    def _is_computed(step: Step, layer: int, call: _Call, reply: ReceivedReply) -> npt.NDArray[np.bool_]:
        share = call.share
        is_computed = np.ones(len(share.positions), dtype=bool)
        for failure in reply.failures:
            pairs = np.asarray(failure.pairs, dtype=np.int64)
            if len(pairs) == 0 or pairs.max() >= len(is_computed):
                raise ServingError(f"{call.address} named pairs that were not in the frame")
            is_computed[pairs] = False
            error = _why(failure.reason, call.address, layer, int(share.experts[pairs[0]]))
            step.fail(share.rows[share.pair_rows[pairs]], error)
        return is_computed

    @staticmethod
    def _record(spans: LayerSpans, times: list[ReplyTimes], at: tuple[int, int, int, int, int]) -> None:
        gate_began, scatter_began, scatter_ended, gathered, ended = at
        spans.part("gate", gate_began, scatter_began)
        spans.part("scatter", scatter_began, scatter_ended)
        spans.part("gather", scatter_ended, gathered)
        spans.part("combine", gathered, ended)
        spans.end(ended, max(times, key=lambda reply: reply.arrived).service if times else "")


async def _answer_of(call: _Call) -> Answer | ServingError:
    try:
        return await call.answered
    except ServingError as error:
        return error


def _sendable(step: Step, layer: int, weights: Weights, top_k: int) -> Weights:
    """The weights, those that are not finite as zero; the sequences of these end."""
    is_finite = np.isfinite(weights)
    if is_finite.all():
        return weights
    error = ServingError(f"the gate of layer {layer} computed weights that are not finite")
    step.fail(np.flatnonzero(~is_finite) // top_k, error)
    return np.where(is_finite, weights, np.float32(0))


def _encoder(
    share: Share, layer: int, outgoing: _Outgoing, step: Step, traceparent: str
) -> Callable[[int, int], bytes]:
    whole, weights = len(share.rows) == step.num_tokens, outgoing.weights

    def encode(frame_id: int, remaining_nanos: int) -> bytes:
        return encode_frame(
            frame_id=frame_id,
            layer=layer,
            rows=outgoing.hidden,
            row_indices=None if whole else share.rows,
            pair_rows=share.pair_rows,
            pair_experts=share.experts,
            remaining_nanos=remaining_nanos,
            traceparent=traceparent,
            requests=step.requests_of(share.rows),
            pair_weights=None if weights is None else weights[share.positions],
        )

    return encode


def _named(error: ServingError, layer: int, experts: Words) -> ServingError:
    return type(error)(f"expert {experts[0]} of layer {layer} could not be computed: {error}")


def _why(reason: int, address: str, layer: int, expert: int) -> ServingError:
    subject = f"expert {expert} of layer {layer} was not computed by {address}"
    match reason:
        case expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED:
            return Unavailable(f"{subject}: it is not hosted there any more")
        case expert_pb2.PAIR_FAILURE_REASON_OVERLOADED:
            return Overloaded(f"{subject}: its queue is full")
        case expert_pb2.PAIR_FAILURE_REASON_EXPIRED:
            return Unavailable(f"{subject}: the frame's time passed in its queue")
        case _:
            return ServingError(f"{subject}: its reason is {reason}")
