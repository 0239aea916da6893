"""A layer's pairs on their way out: shared out among services, a frame or a few to each."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from services.router.arrays import Indices
from services.router.dispatch.assignment import SEVERAL, Assigned, Choices, assign
from services.router.dispatch.failure import FailedPairs, ServiceFailure
from services.router.dispatch.frame_pairs import NOBODY, FramePairs, pairs_by_frame
from services.router.dispatch.placement import Placement
from services.router.engine.spans import NO_FRAME_SPAN, NO_LAYER_SPANS, FrameSpan, LayerSpans
from services.router.engine.step import Step
from services.router.peers.pace import Pace
from services.router.peers.stream import TimedReply
from services.wire.errors import ServingError
from services.wire.frames import encode_frame
from services.wire.received import Weights


@dataclass(slots=True)
class Outgoing:
    """A layer's input in the host's memory: rows [tokens, hidden], experts and weights of [tokens x
    k] pairs.

    DROPPED stands for the expert of a pair that is not computed.
    """

    layer: int
    hidden: torch.Tensor
    experts: Indices
    weights: Weights | None  # where services sum
    top_k: int


@dataclass(slots=True)
class Attempt:
    """Pairs to send now, assigned to the placement's services; `failures` are of experts that were
    tried before.
    """

    placement: Placement
    assigned: Assigned
    failures: Mapping[int, Sequence[ServiceFailure]] = field(default_factory=dict)

    def frames(self, top_k: int, row_bytes: int, *, counts_rows: bool) -> list[FramePairs]:
        """The pairs by service, in frames of as many pairs, or rows, of so many bytes as it
        takes.
        """
        assigned, most = self.assigned, self.placement.most_in_frame(row_bytes)
        frames = pairs_by_frame(
            assigned.parts, assigned.owners, top_k, most, counts_rows=counts_rows
        )
        if assigned.experts is not None:
            for pairs in frames:
                pairs.experts = assigned.experts[pairs.experts]
        return frames


@dataclass(slots=True, eq=False)
class SentFrame:
    """A frame that was sent, and who waits for its answer; `attempt` counts from 1."""

    pairs: FramePairs
    answered: "asyncio.Future[TimedReply]"
    span: FrameSpan
    address: str
    attempt: int

    def release(self) -> None:
        """Nobody waits any more: a frame that is not answered is given up, an error
        counts as seen.
        """
        if self.answered.cancel():
            self.span.end(None, attempt=self.attempt, failure="given up")

    def pass_over(self) -> None:
        """The same where what it asked for was computed by others."""
        self.answered.cancel()
        self.span.pass_over(self.attempt)


def first_attempt(outgoing: Outgoing, placement: Placement) -> Attempt:
    """All pairs of the layer, to the replicas of their experts that are expected to be done with
    them first.
    """
    owners, choices = placement.owners[outgoing.layer], placement.choices(outgoing.layer)
    if not choices:
        return Attempt(placement, Assigned(outgoing.experts, owners))
    return Attempt(placement, assign(outgoing.experts, owners, choices, _paces(placement)))


def attempt_at(
    placement: Placement,
    layer: int,
    experts: Indices,
    choices: Choices,
    failures: Mapping[int, Sequence[ServiceFailure]],
) -> Attempt:
    """The pairs of `experts` that are not DROPPED, each to one of the services that `choices` has
    for its expert; `failures` are of experts that were tried before.
    """
    owners = np.full(len(placement.owners[layer]), NOBODY, dtype=np.int64)
    for expert, services in choices.items():
        owners[expert] = services[0] if len(services) == 1 else SEVERAL
    return Attempt(placement, assign(experts, owners, choices, _paces(placement)), failures)


def _paces(placement: Placement) -> list[Pace]:
    return [service.pace for service in placement.services]


class Scatter:
    """Sends rows of `wire_dtype`, with `checksums` where asked for.

    With `sums_on_services` a row is answered once in a frame, else each pair is.
    """

    def __init__(
        self, *, hidden_size: int, wire_dtype: torch.dtype, sums_on_services: bool, checksums: bool
    ) -> None:
        self._row_bytes = hidden_size * wire_dtype.itemsize
        self._counts_rows = sums_on_services
        self._checksums = checksums

    def __call__(
        self,
        step: Step,
        outgoing: Outgoing,
        attempt: Attempt,
        spans: LayerSpans,
        sent: list[SentFrame],
    ) -> list[FailedPairs]:
        """Send the frames of an attempt and add them to `sent`; returns the pairs that nobody can
        be asked for.
        """
        placement, lane, unserved = attempt.placement, step.lane, []
        counts_rows = self._counts_rows
        for pairs in attempt.frames(outgoing.top_k, self._row_bytes, counts_rows=counts_rows):
            service = None if pairs.service == NOBODY else placement.services[pairs.service]
            if service is None or lane >= len(
                service.streams
            ):  # it was lost, and the placement is not yet replaced
                unserved.append(FailedPairs(pairs.positions, None))
                continue
            number = _attempt_number(attempt, pairs, step) if attempt.failures else 1
            num_pairs, span = len(pairs.positions), NO_FRAME_SPAN
            if spans is not NO_LAYER_SPANS:
                num_rows = len(pairs.rows)
                num_bytes = num_rows * self._row_bytes
                now = step.clock.now()
                span = spans.begin_frame(
                    service.address,
                    now,
                    rows=num_rows,
                    pairs=num_pairs,
                    num_bytes=num_bytes,
                    experts=pairs.each_expert,
                )
            encode = self._encoder(pairs, outgoing, step, span.traceparent)
            answered = service.streams[lane].send(encode, num_pairs, pairs.num_experts)
            sent.append(SentFrame(pairs, answered, span, service.address, number))
        return unserved

    def _encoder(
        self, pairs: FramePairs, outgoing: Outgoing, step: Step, traceparent: str
    ) -> Callable[[int, int], bytes]:
        whole, weights, checksums = (
            len(pairs.rows) == step.num_tokens,
            outgoing.weights,
            self._checksums,
        )

        def encode(frame_id: int, remaining_nanos: int) -> bytes:
            return encode_frame(
                frame_id=frame_id,
                layer=outgoing.layer,
                rows=outgoing.hidden,
                row_indices=None if whole else pairs.rows,
                pair_rows=pairs.pair_rows,
                pair_experts=pairs.experts,
                remaining_nanos=remaining_nanos,
                traceparent=traceparent,
                requests=step.requests_of(pairs.rows),
                checksum=checksums,
                pair_weights=None if weights is None else weights[pairs.positions],
            )

        return encode


def _attempt_number(attempt: Attempt, pairs: FramePairs, step: Step) -> int:
    """Which attempt at these pairs it is, counted as a retry if it is not the first."""
    failures = max(
        (attempt.failures.get(expert, ()) for expert in set(pairs.experts.tolist())), key=len
    )
    if failures:
        step.clock.retries[failures[-1].address, failures[-1].reason] += 1
    return 1 + len(failures)


def sendable_weights(step: Step, layer: int, weights: Weights, top_k: int) -> Weights:
    """The weights, those that are not finite as zero; the sequences of these end."""
    is_finite = np.isfinite(weights)
    if is_finite.all():
        return weights
    error = ServingError(f"the gate of layer {layer} computed weights that are not finite")
    step.fail(np.flatnonzero(~is_finite) // top_k, error)
    return np.where(is_finite, weights, np.float32(0))
