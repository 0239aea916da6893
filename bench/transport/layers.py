"""The tensor stream as a step uses it: a layer's frames and replies as one exchange."""

import time
from collections.abc import Sequence

import torch

from bench.rig.peers import decode_step, dispatcher_over
from bench.transport.bursts import BURST, UNCOUNTED
from services.model.checkpoint import Checkpoint
from services.router.dispatch.combine import ExactCombine
from services.router.dispatch.exchange import MOST_WAIT_NANOS, Exchange
from services.router.dispatch.exchanges import Exchanges
from services.router.dispatch.scatter import Outgoing, first_attempt
from services.router.engine.spans import NO_LAYER_SPANS
from services.router.peers.peer import ExpertPeer


class LayerClient:
    """Sends each of the services as many rows, which go to one expert of each; there are as many
    experts as services at least.

    A burst is a step: it is made beforehand, and its layers follow one another. Rows are readable
    at the end of a sample. What a router then makes of them, their sum, is left out.
    """

    def __init__(
        self, checkpoint: Checkpoint, peers: Sequence[ExpertPeer], rows: torch.Tensor
    ) -> None:
        num_services, num_rows = len(peers), len(peers) * len(rows)
        self._placement = dispatcher_over(checkpoint, peers).placement
        self._hidden = rows.repeat(num_services, 1)
        self._weights = torch.ones(num_rows, 1, dtype=checkpoint.dtype)
        experts = torch.arange(num_services).repeat_interleave(len(rows)).numpy()
        self._outgoing = Outgoing(checkpoint.moe_layers[0], self._hidden, experts, None, 1)
        self._exchanges = Exchanges(
            hidden_size=checkpoint.hidden_size,
            wire_dtype=checkpoint.dtype,
            combine=ExactCombine(),
            checksums=True,  # as a router does unless told otherwise
            most_wait_nanos=MOST_WAIT_NANOS,
        )

    async def burst(self) -> list[float]:
        """As Burst says."""
        step, taken = decode_step(len(self._hidden)), []
        attempt = first_attempt(self._outgoing, self._placement)
        for _ in range(BURST):
            began = time.perf_counter_ns()
            exchange = self._exchanges.begin(
                step, self._outgoing, attempt, NO_LAYER_SPANS, self._weights, self._hidden
            )
            assert exchange is not None, "nothing is unusual"
            await _gather(exchange)
            taken.append((time.perf_counter_ns() - began) / 1e6)
            if exchange.is_complete:
                exchange.combined(self._weights, self._hidden)
        return taken[UNCOUNTED:]


async def _gather(exchange: Exchange) -> None:
    await exchange.complete(_nothing)
    if exchange.is_complete:
        exchange.replies()
    else:  # as a router goes on after a while
        for frame in exchange.give_up():
            await frame.answered


def _nothing() -> None:
    pass
