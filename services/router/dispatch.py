"""Scatter and gather: a layer's rows go to the services that host its experts, and come back to be combined."""

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Sequenced
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from moesaic.v1 import expert_pb2
from services.router.capacity import capacity_of, overflowed
from services.router.expert_stream import Answer, ExpertStream
from services.router.host_copy import to_host
from services.router.receipt import ReplyTimes
from services.router.shares import NOBODY, Indices, Share, shares_of
from services.router.spans import CallSpan, LayerSpans
from services.router.step import Step
from services.wire.errors import InvalidRequest, Overloaded, ServingError, Unavailable
from services.wire.frames import ReceivedReply, encode_frame

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


@dataclass(frozen=True)
class _Call:
    share: Share
    answered: "asyncio.Future[Answer]"
    span: CallSpan
    address: str


class Dispatcher:
    """Computes a layer's routed experts on the services of the current placement.

    `capacity_factor`, where given, turns the capacity guard on.
    """

    def __init__(
        self,
        *,
        num_experts: int,
        hidden_size: int,
        dtype: torch.dtype,
        capacity_factor: float | None = None,
    ) -> None:
        self._num_experts = num_experts
        self._hidden_size = hidden_size
        self._dtype = dtype
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

        Services return unweighted rows for each (token, slot); the sum runs here in slot order, so that it does not
        depend on who computed a row nor on the order of replies. Rows whose experts nobody can compute end their
        sequences; the step goes on.
        """
        gate_began = step.clock.started + step.clock.parts.total()
        scatter_began = step.clock.charge("gate")
        spans = step.spans.begin_layer(layer, gate_began)
        host_hidden, experts = await self._on_host(step, layer, hidden, index)
        calls = self._scatter(step, layer, host_hidden, experts, index.shape[1], spans)
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
        rows = self._gather(step, layer, experts, answers, hidden)
        combined = (rows.view(len(hidden), index.shape[1], -1) * weights[..., None]).sum(1).to(hidden.dtype)
        ended = step.clock.charge("combine")
        self._record(spans, times, (gate_began, scatter_began, scatter_ended, gathered, ended))
        return combined

    async def _on_host(
        self, step: Step, layer: int, hidden: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, Indices]:
        num_tokens = step.num_tokens  # rows beyond are padding and are not sent
        host_hidden, host_index = await to_host(hidden[:num_tokens].detach(), index[:num_tokens])
        experts: Indices = host_index.reshape(-1).to(torch.int64).numpy()
        if step.wants_routed_experts:
            step.routed[layer] = host_index[step.last_rows]
        if self._capacity_factor is not None:
            experts = self._guard(step, experts, index.shape[1])
        return host_hidden.contiguous(), experts

    def _guard(self, step: Step, experts: Indices, top_k: int) -> Indices:
        assert self._capacity_factor is not None
        capacity = capacity_of(self._capacity_factor, step.num_tokens, top_k, self._num_experts)
        dropped = overflowed(experts, self._num_experts, capacity)
        for work in step.row_sequences[dropped // top_k]:
            step.batch[work].sequence.overflowed_pairs += 1
        guarded = experts.copy()
        guarded[dropped] = DROPPED
        return guarded

    def _scatter(
        self, step: Step, layer: int, hidden: torch.Tensor, experts: Indices, top_k: int, spans: LayerSpans
    ) -> list[_Call]:
        placement, calls = self.placement, []
        # Half of a frame is for what surrounds the rows: indices, request numbers, headers.
        max_pairs = placement.max_frame_bytes // 2 // (self._hidden_size * self._dtype.itemsize)
        for share in shares_of(experts, placement.owners[layer], top_k, max(1, max_pairs)):
            if share.service == NOBODY:
                error = Unavailable(f"no live service hosts expert {share.experts[0]} of layer {layer}")
                step.fail(share.rows, error)
                continue
            address = placement.addresses[share.service]
            rows = hidden if len(share.rows) == len(hidden) else hidden[torch.from_numpy(share.rows)]
            span = spans.begin_call(
                address, step.clock.now(), rows=len(rows), pairs=len(share.positions), num_bytes=rows.nbytes
            )
            encode = partial(_encode, share=share, layer=layer, rows=rows, step=step, span=span)
            answered = placement.streams[share.service][step.lane].send(encode, len(share.positions))
            calls.append(_Call(share, answered, span, address))
        return calls

    def _gather(
        self,
        step: Step,
        layer: int,
        experts: Indices,
        answers: Sequenced[tuple[_Call, Answer | ServingError]],
        like: torch.Tensor,
    ) -> torch.Tensor:
        top_k = len(experts) // step.num_tokens
        gathered = torch.zeros(len(like) * top_k, self._hidden_size, dtype=self._dtype)
        for call, answer in answers:
            times = answer.times if isinstance(answer, Answer) else None
            try:
                if isinstance(answer, ServingError):
                    raise answer
                computed, rows = self._computed(step, layer, call, answer.reply)
                gathered.index_copy_(0, torch.from_numpy(computed), rows)
            except ServingError as error:
                call.span.end(times, attempt=1, failure=str(error))
                step.fail(call.share.rows, _named(error, layer, call.share.experts))
            else:
                failure = "" if len(computed) == len(call.share.positions) else "some pairs were not computed"
                call.span.end(times, attempt=1, failure=failure)
        return gathered.to(like.device, non_blocking=True)

    def _computed(self, step: Step, layer: int, call: _Call, reply: ReceivedReply) -> tuple[Indices, torch.Tensor]:
        """Positions of the share's pairs that were computed, and their rows; the sequences of the others end.

        Raises ServingError when nothing of the reply can be used.
        """
        share = call.share
        if reply.error is not None:
            raise ServingError(f"{call.address} refused a frame: {reply.error.message}")
        is_computed = np.ones(len(share.positions), dtype=bool)
        for failure in reply.failures:
            pairs = np.asarray(failure.pairs, dtype=np.int64)
            if len(pairs) == 0 or pairs.max() >= len(is_computed):
                raise ServingError(f"{call.address} named pairs that were not in the frame")
            is_computed[pairs] = False
            error = _why(failure.reason, call.address, layer, int(share.experts[pairs[0]]))
            step.fail(share.rows[share.pair_rows[pairs]], error)
        computed = share.positions[is_computed]
        try:
            rows = reply.rows(self._dtype, self._hidden_size)
        except InvalidRequest as error:  # the service's fault, not the client's
            raise ServingError(f"{call.address} returned a broken reply: {error}") from error
        if len(rows) != len(computed):
            raise ServingError(f"{call.address} returned {len(rows)} rows for {len(computed)} pairs")
        return computed, rows

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


def _encode(
    frame_id: int,
    remaining_nanos: int,
    *,
    share: Share,
    layer: int,
    rows: torch.Tensor,
    step: Step,
    span: CallSpan,
) -> bytes:
    return encode_frame(
        frame_id=frame_id,
        layer=layer,
        rows=rows,
        pair_rows=share.pair_rows.astype(np.uint32),
        pair_experts=share.experts.astype(np.uint32),
        remaining_nanos=remaining_nanos,
        traceparent=span.traceparent,
        requests=[sequence.number for sequence in step.sequences_of(share.rows)],
    )


def _named(error: ServingError, layer: int, experts: Indices) -> ServingError:
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
