"""Which layers are sent and awaited as one exchange in compiled code: those of which nothing
unusual is asked.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
import torch

from services import kernels
from services.router.dispatch.combine import Combination, ExactCombine
from services.router.dispatch.exchange import Exchange, ExchangeForm, LoopTurns, Share
from services.router.dispatch.scatter import Attempt, Outgoing
from services.router.engine.spans import LayerSpans
from services.router.engine.step import Step
from services.router.peers.native_transport import AVAILABLE, _streams
from services.router.peers.stream import ExpertStream
from services.runtime.loop_internals import descriptor_of


class Exchanges:
    """Begins them, for rows of `wire_dtype`, with `checksums` where asked for.

    An exchange waits in compiled code and combines exactly. So it is for a lane that is alone, for
    streams that are carried by compiled code and have nothing in the way, and for a combination
    that the kernels compute.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        wire_dtype: torch.dtype,
        combine: Combination,
        checksums: bool,
        most_wait_nanos: int,
    ) -> None:
        self._form = ExchangeForm(hidden_size, wire_dtype, checksums, most_wait_nanos)
        self._is_possible = AVAILABLE and isinstance(combine, ExactCombine)
        self._idle: list[_streams.Exchange] = []  # with the memory that their last layer needed
        self._turns = LoopTurns()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_descriptor: int | None = None

    def begin(
        self,
        step: Step,
        outgoing: Outgoing,
        attempt: Attempt,
        spans: LayerSpans,
        weights: torch.Tensor,
        hidden: torch.Tensor,
    ) -> Exchange | None:
        """Send the frames of a first attempt; None, and nothing is sent, where anything is unusual.

        `weights` and `hidden` are what will be combined.
        """
        if not self._is_possible or not step.is_alone or not self._combines(weights, hidden):
            return None
        descriptor = self._descriptor()
        if descriptor is None:
            return None
        native = self._idle.pop() if self._idle else _streams.Exchange()
        shares = self._enter(native, step.lane, attempt, outgoing.top_k)
        if not shares:
            self._idle.append(native)
            return None
        exchange = Exchange(
            native, self._idle, self._form, descriptor, self._turns, shares, outgoing, attempt
        )
        try:
            exchange.send(step, spans)
        except BaseException:
            _leave(shares)
            raise
        return exchange

    def _combines(self, weights: torch.Tensor, hidden: torch.Tensor) -> bool:
        form = self._form
        return (
            kernels.AVAILABLE
            and hidden.is_cpu
            and kernels.combines(form.wire_dtype, weights, form.hidden_size, hidden.dtype)
        )

    def _descriptor(self) -> int | None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._loop_descriptor = loop, descriptor_of(loop)
        return self._loop_descriptor

    def _enter(
        self, native: "_streams.Exchange", lane: int, attempt: Attempt, top_k: int
    ) -> list[Share]:
        """Share the pairs out and enter a frame with each service; nothing where one has to wait,
        or nobody is there.
        """
        placement, assigned = attempt.placement, attempt.assigned
        found = _streams.share_out(
            exchange=native,
            parts=assigned.parts,
            owners=assigned.owners,
            experts=None if assigned.experts is None else assigned.experts.astype(np.int64),
            num_pairs=len(assigned.parts),
            num_parts=len(assigned.owners),
            top_k=top_k,
        )
        most = placement.most_in_frame(self._form.row_bytes)
        shares: list[Share] = []
        for number, num_pairs, num_rows, num_experts in found:
            streams = placement.services[number].streams if number >= 0 else ()
            stream = streams[lane] if lane < len(streams) else None
            frame = None
            if isinstance(stream, ExpertStream) and num_pairs <= most[number]:
                frame = stream.enter(num_pairs, num_experts)
            if frame is None or not isinstance(stream, ExpertStream):
                _leave(shares)
                return []
            shares.append(Share(placement.services[number].address, stream, frame, num_rows))
        return shares


def _leave(shares: Sequence[Share]) -> None:
    """Nothing was sent of these."""
    for share in shares:
        share.stream.leave(share.frame)
