"""Scatter and gather: a layer's rows go to the services of its experts and come back combined."""

from collections.abc import Callable
from collections.abc import Sequence as Sequenced
from itertools import pairwise

import numpy as np
import torch

from services.router.arrays import Indices
from services.router.dispatch.auditor import Auditor
from services.router.dispatch.awaited import Awaited
from services.router.dispatch.awaiting import Awaiting
from services.router.dispatch.capacity import capacity_of, find_overflow
from services.router.dispatch.combine import Combination
from services.router.dispatch.drawing_rows import experts_of_drawing
from services.router.dispatch.exchange import MOST_WAIT_NANOS, Exchange
from services.router.dispatch.exchanges import Exchanges
from services.router.dispatch.frame_pairs import DROPPED
from services.router.dispatch.gather import Gather, Gathered
from services.router.dispatch.hedging import Hedging, Sent
from services.router.dispatch.host_copy import to_host
from services.router.dispatch.placement import Placement
from services.router.dispatch.resending import Again, Resending
from services.router.dispatch.scatter import (
    Attempt,
    Outgoing,
    Scatter,
    SentFrame,
    first_attempt,
    sendable_weights,
)
from services.router.engine.spans import NO_LAYER_SPANS, PART_NAMES, LayerSpans
from services.router.engine.step import Step
from services.router.load.watch import RoutingWatch
from services.router.times.blame import Blame, Waited, blame
from services.runtime.notice import Notice

UNSERVED_SECONDS = 10.0


class Dispatcher:
    """Computes a layer's routed experts on the services of the current placement.

    Rows travel in `wire_dtype`, with checksums unless told otherwise. In the model's `last_layer`,
    where given, only rows that a token is drawn from are computed. `watch`, where given, sees the
    routing; `capacity_factor` turns the capacity guard on. Pairs that a service does not compute
    are sent again, to another replica where there is one. They wait for one that can compute them
    for `unserved_seconds`, from the first failure or from when `awaited` last got on. A frame that
    is late is sent to another replica, too, as far as `hedge_share` of the frames allows. Compiled
    code waits for the replies of a layer for `exchange_wait_nanos` before the loop does.
    """

    _auditor: Auditor | None = None

    def __init__(
        self,
        *,
        num_experts: int,
        hidden_size: int,
        wire_dtype: torch.dtype,
        combine: Combination,
        last_layer: int | None = None,
        watch: RoutingWatch | None = None,
        capacity_factor: float | None = None,
        unserved_seconds: float = UNSERVED_SECONDS,
        frame_checksums: bool = True,
        hedge_share: float = 0.0,
        exchange_wait_nanos: int = MOST_WAIT_NANOS,
    ) -> None:
        self.placement = Placement()
        self._num_experts = num_experts
        self._wire_dtype = wire_dtype
        self._combine = combine
        self._last_layer = last_layer
        self._watch = watch
        self._capacity_factor = capacity_factor
        self.awaited = Awaited()
        self._scatter = Scatter(
            hidden_size=hidden_size,
            wire_dtype=wire_dtype,
            sums_on_services=combine.sums_on_services,
            checksums=frame_checksums,
        )
        checked, hedging = frame_checksums, Hedging(hedge_share, self._scatter)
        gather = Gather(
            hidden_size=hidden_size, wire_dtype=wire_dtype, combine=combine, checksums=checked
        )
        self._awaiting = Awaiting(gather, hedging, lambda: self.placement)
        self._exchanges = Exchanges(
            hidden_size=hidden_size,
            wire_dtype=wire_dtype,
            combine=combine,
            checksums=frame_checksums,
            most_wait_nanos=exchange_wait_nanos,
        )
        self._news = Notice()  # of a placement, or of sequences that have ended
        self._resending = Resending(
            self._try,
            lambda: self.placement,
            self._news,
            self.awaited,
            unserved_seconds=unserved_seconds,
            are_sums=combine.sums_on_services,
        )

    def place(self, placement: Placement) -> None:
        """Use another placement, from the next layer and the next attempt on."""
        self.placement = placement
        self._news.send()

    def audit_by(self, auditor: Auditor) -> None:
        """Have frames looked at a second time from now on."""
        self._auditor = auditor

    def forget(self, requests: Sequenced[int]) -> None:
        """Some sequences have ended, and nothing has to be computed for them any more."""
        if requests:
            self._news.send()

    async def compute(
        self,
        step: Step,
        layer: int,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weights: torch.Tensor,
        meanwhile: Callable[[], None] | None,
    ) -> torch.Tensor:
        """The weighted sum of each row's experts, [tokens, hidden]; how they are summed, and how
        far the sum depends on who computed a row, is the combine's.

        Rows whose experts nobody can compute end their sequences; the step goes on.
        """
        gate_began = step.clock.ended
        scatter_began = step.clock.charge("gate")
        spans = step.spans.begin_layer(layer, gate_began)
        sent = self._to_send(step, hidden, index, weights)
        outgoing = self._outgoing(step, layer, *(sent if hidden.is_cpu else await to_host(*sent)))
        attempt = first_attempt(outgoing, self.placement)
        waits: list[Waited] = []

        def on_the_way() -> None:
            if self._watch is not None:
                self._watch.note(step.lane, layer, outgoing.experts, is_decode=step.is_decode)
            if meanwhile is not None:
                meanwhile()
                step.clock.charge("dense")

        exchange = self._exchanges.begin(step, outgoing, attempt, spans, weights, hidden)
        if exchange is not None:
            scatter_ended = step.clock.charge("encode")
            await exchange.complete(on_the_way)
            gathered = await self._taken_from(exchange, step, outgoing, spans, waits, scatter_began)
        else:
            tried = await self._try(step, outgoing, attempt, spans, waits, on_the_way)
            gathered, scatter_ended = tried
        again = Again(step, outgoing, spans, waits)
        if gathered.failed:
            await self._resending.finish(again, gathered)
        gather_ended = step.clock.ended
        output = await self._summed(exchange, again, gathered, weights, hidden)
        ended = step.clock.charge("combine")
        blamed = blame(waits)
        step.clock.note_straggler(blamed)
        if spans is not NO_LAYER_SPANS:
            moments = gate_began, scatter_began, scatter_ended, gather_ended, ended
            _end_spans(spans, moments, blamed)
        return output

    async def _summed(
        self,
        exchange: Exchange | None,
        again: Again,
        gathered: Gathered,
        weights: torch.Tensor,
        hidden: torch.Tensor,
    ) -> torch.Tensor:
        """The layer's output. Where it is not finite the rows are looked at one by one, once, and
        those that are to blame are computed elsewhere.
        """
        if exchange is not None and not exchange.is_complete:
            exchange = None  # it went on frame by frame
        addresses = [part.address for part in gathered.returned]
        audited = self._to_audit(addresses if exchange is None else exchange.addresses)
        if exchange is None or audited:
            if exchange is not None:
                gathered.returned = exchange.returned()
            sums = self._combine(gathered.returned, weights, hidden)
        else:
            sums = exchange.combined(weights, hidden)
            if not sums.are_finite:
                gathered.returned = exchange.returned()
        if self._auditor is not None and sums.are_finite:
            for index in audited:
                self._auditor.note(gathered.returned[index], again.outgoing, again.step)
        if sums.are_finite or gathered.failed:  # of which all was looked at when it was sent again
            return sums.output
        await self._resending.finish(again, gathered)
        return self._combine(gathered.returned, weights, hidden).output

    def _to_audit(self, addresses: Sequenced[str]) -> Sequenced[int]:
        return () if self._auditor is None else self._auditor.chosen(addresses)

    def _to_send(
        self, step: Step, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Rows, experts and, where services sum, weights: of all that is not padding."""
        if hidden.shape[0] > step.num_tokens:
            hidden, index, weights = (x[: step.num_tokens] for x in (hidden, index, weights))
        rows = hidden if hidden.dtype is self._wire_dtype else hidden.to(self._wire_dtype)
        return (rows, index, weights.float()) if self._combine.sums_on_services else (rows, index)

    def _outgoing(
        self,
        step: Step,
        layer: int,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> Outgoing:
        experts: Indices = index.numpy().reshape(-1).astype(np.int64, copy=False)
        if step.wants_routed_experts:
            step.routed[layer] = index[step.last_rows]
        top_k = index.shape[1]
        if self._capacity_factor is not None:
            experts = self._guard(step, experts, top_k)
        if layer == self._last_layer and len(step.drawing) < step.num_tokens:
            experts = experts_of_drawing(step, experts, top_k)
        sent = (
            None
            if weights is None
            else sendable_weights(step, layer, weights.reshape(-1).numpy(), top_k)
        )
        return Outgoing(layer, hidden.contiguous(), experts, sent, top_k)

    def _guard(self, step: Step, experts: Indices, top_k: int) -> Indices:
        assert self._capacity_factor is not None
        capacity = capacity_of(self._capacity_factor, step.num_tokens, top_k, self._num_experts)
        dropped = find_overflow(experts, self._num_experts, capacity)
        for work in step.row_sequences[dropped // top_k]:
            step.batch[work].sequence.overflowed_pairs += 1
        guarded = experts.copy()
        guarded[dropped] = DROPPED
        return guarded

    async def _try(
        self,
        step: Step,
        outgoing: Outgoing,
        attempt: Attempt,
        spans: LayerSpans,
        waits: list[Waited],
        on_the_way: Callable[[], None] | None = None,
    ) -> tuple[Gathered, int]:
        """Send an attempt's frames and wait for all of their answers; also when the last one was
        sent.

        `on_the_way` is called meanwhile. The wait for each is added to `waits`.
        """
        sent: list[SentFrame] = []
        began = step.clock.now()
        try:
            unserved = self._scatter(step, outgoing, attempt, spans, sent)
            scatter_ended = step.clock.charge("encode")
            if on_the_way is not None:
                on_the_way()
        except BaseException:
            for frame in sent:
                frame.release()
            raise
        gathered = await self._awaiting(Sent(step, outgoing, spans, sent, began), waits)
        gathered.failed += unserved
        return gathered, scatter_ended

    async def _taken_from(
        self,
        exchange: Exchange,
        step: Step,
        outgoing: Outgoing,
        spans: LayerSpans,
        waits: list[Waited],
        began: int,
    ) -> Gathered:
        """What is left to be gathered of an exchange: nothing where it is complete."""
        if not exchange.is_complete:
            sent = Sent(step, outgoing, spans, exchange.give_up(), began)
            return await self._awaiting(sent, waits)
        replies = exchange.replies()
        waits += replies
        self._awaiting.note_frames(len(replies))
        step.clock.charge_gather(replies)
        return Gathered([], [])


def _end_spans(spans: LayerSpans, moments: Sequenced[int], blamed: Blame | None) -> None:
    """The layer's parts lie between these moments."""
    for name, (began, ended) in zip(PART_NAMES, pairwise(moments), strict=True):
        spans.part(name, began, ended)
    spans.end(moments[-1], blamed)
