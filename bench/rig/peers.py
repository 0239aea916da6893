"""The router's side of the tensor path, without a model around it: connections, a placement, steps,
and gates.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import torch

from bench.harness.failure import BenchFailed
from services.model.checkpoint import Checkpoint
from services.router.dispatch.combine import Combination, ExactCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.placement import Placement, Replicas
from services.router.engine.scheduler import ScheduledTokens
from services.router.engine.sequence import Order
from services.router.engine.sequence import Sequence as RoutedSequence
from services.router.engine.step import Step
from services.router.peers.expected import Expected
from services.router.peers.peer import ExpertPeer
from services.router.times.receipt import SequenceReceipt
from services.wire.frames import ELEMENT_TYPES
from services.wire.sampling import Sampling

CONNECT_SECONDS = 60.0
# Far beyond what any frame of a bench takes: a slow machine is a figure, not a failure.
FRAME_SECONDS = 60.0


@asynccontextmanager
async def connected(
    checkpoint: Checkpoint,
    addresses: Sequence[str],
    *,
    num_lanes: int = 1,
    dtype: torch.dtype | None = None,
) -> AsyncIterator[list[ExpertPeer]]:
    """The router's own connections to the services, all live, in the order of the addresses.

    They compute in `dtype`, by default the checkpoint's. Raises BenchFailed when one cannot be
    reached.
    """
    expected = expected_of(checkpoint, dtype or checkpoint.dtype)
    changed = asyncio.Event()
    peers = [
        ExpertPeer(address, expected, num_lanes, FRAME_SECONDS, changed.set)
        for address in addresses
    ]
    async with asyncio.TaskGroup() as tasks:
        loops = [tasks.create_task(peer.run()) for peer in peers]
        try:
            await _until_live(peers, changed)
            yield peers
        finally:
            for loop in loops:
                loop.cancel()


def expected_of(checkpoint: Checkpoint, dtype: torch.dtype) -> Expected:
    """What a router of this checkpoint expects of services that compute in `dtype`."""
    return Expected(
        model_digest=checkpoint.digest,
        element_type=ELEMENT_TYPES[dtype],
        wire_type=ELEMENT_TYPES[dtype],
        sums_pairs=False,
        hidden_size=checkpoint.hidden_size,
        batch_invariant=False,
        moe_layers=tuple(checkpoint.moe_layers),
        num_experts=checkpoint.num_experts,
    )


async def _until_live(peers: Sequence[ExpertPeer], changed: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            while not all(peer.is_live for peer in peers):
                changed.clear()
                await changed.wait()
    except TimeoutError:
        missing = ", ".join(peer.address for peer in peers if not peer.is_live)
        raise BenchFailed(f"no connection within {CONNECT_SECONDS:g} s to {missing}") from None


def dispatcher_over(
    checkpoint: Checkpoint,
    peers: Sequence[ExpertPeer],
    *,
    wire_dtype: torch.dtype | None = None,
    combine: Combination | None = None,
) -> Dispatcher:
    """The router's dispatcher, with each expert at one of the peers that host it, dealt out in
    turn.

    By default rows travel in the checkpoint's type and are combined exactly.
    """
    dispatcher = Dispatcher(
        num_experts=checkpoint.num_experts,
        hidden_size=checkpoint.hidden_size,
        wire_dtype=wire_dtype or checkpoint.dtype,
        combine=combine or ExactCombine(),
    )
    replicas = {
        layer: _dealt_out(layer, checkpoint.num_experts, peers) for layer in checkpoint.moe_layers
    }
    dispatcher.place(Placement(peers, replicas))
    return dispatcher


def _dealt_out(layer: int, num_experts: int, peers: Sequence[ExpertPeer]) -> Replicas:
    none = np.zeros(num_experts, dtype=bool)
    ready = np.stack([peer.ready.get(layer, none) for peer in peers])
    replicas = np.zeros_like(ready)
    for expert, column in enumerate(ready.T):
        hosts = np.flatnonzero(column)
        if not len(hosts):
            raise BenchFailed(f"no service hosts expert {expert} of layer {layer}")
        replicas[hosts[expert % len(hosts)], expert] = True
    return replicas


def decode_step(num_tokens: int, lane: int = 0) -> Step:
    """A step as decoding makes it: a token of each of so many sequences."""
    order = Order((0,), Sampling(), 2)
    return Step(
        lane,
        [
            ScheduledTokens(
                RoutedSequence(number, order, SequenceReceipt(), generated=[0], num_computed=1), 1
            )
            for number in range(1, num_tokens + 1)
        ],
    )


def prefill_step(num_tokens: int, lane: int = 0) -> Step:
    """A step that reads one sequence's prompt."""
    order = Order((0,) * num_tokens, Sampling(), 1)
    return Step(lane, [ScheduledTokens(RoutedSequence(1, order, SequenceReceipt()), num_tokens)])


def random_gate(num_tokens: int, num_experts: int, top_k: int, seed: int) -> torch.Tensor:
    """Experts of each token, [tokens, k], all different in a row: what a gate without favourites
    chooses.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_tokens, num_experts, generator=generator).topk(top_k, dim=-1).indices
