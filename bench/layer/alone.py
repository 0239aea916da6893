"""What is done for a frame, each thing alone and over and over: no wire, no waiting, one thread."""

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from bench.rig.peers import decode_step, random_gate
from services.expert.bank import Bank
from services.expert.compute import Computer, FrameWork
from services.model.checkpoint import Checkpoint
from services.router.dispatch.combine import ExactCombine, Returned, Sums
from services.router.dispatch.frame_pairs import FramePairs, pairs_by_frame
from services.wire.frames import decode_request, decode_response, encode_frame, encode_reply
from services.wire.received import ReceivedReply

MAX_PAIRS = 1 << 20


class FrameParts:
    """The first of the frames that one layer's rows fall apart into, and everything that is done to
    it.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, num_rows: int, top_k: int, num_services: int
    ) -> None:
        self._dtype, self._hidden_size, self._top_k = (
            checkpoint.dtype,
            checkpoint.hidden_size,
            top_k,
        )
        self._hidden = torch.randn(num_rows, self._hidden_size).to(self._dtype)
        self._experts = random_gate(num_rows, checkpoint.num_experts, top_k, 0).reshape(-1).numpy()
        self._owners = np.arange(checkpoint.num_experts) % num_services
        self._weights = torch.full((num_rows, top_k), 1 / top_k, dtype=self._dtype)
        self._step = decode_step(num_rows)
        self._pairs, *others = self._all_pairs()
        self._request = self._encode()
        self._computed = torch.zeros(
            len(self._pairs.positions), self._hidden_size, dtype=self._dtype
        )
        self._reply = self._encode_reply()
        self._replies = [self._returned(pairs) for pairs in (self._pairs, *others)]

    @property
    def frame_bytes(self) -> tuple[int, int]:
        """Bytes of the request and of the reply."""
        return len(self._request), len(self._reply)

    def timed(self, num_rounds: int) -> dict[str, list[float]]:
        """Microseconds of each part, taken in turn."""
        parts: dict[str, Callable[[], object]] = {
            "router: frames of all services": self._all_pairs,
            "router: encode the frame": self._encode,
            "service: decode the frame": lambda: decode_request(self._request),
            "service: encode the reply": self._encode_reply,
            "router: decode the reply": self._decode_reply,
            "router: combine all rows": self._combine,
        }
        samples: dict[str, list[float]] = {name: [] for name in parts}
        for number in range(num_rounds + 1):
            for name, run in parts.items():
                began = time.perf_counter_ns()
                run()
                if number:
                    samples[name].append((time.perf_counter_ns() - began) / 1e3)
        return samples

    def _all_pairs(self) -> list[FramePairs]:
        return pairs_by_frame(self._experts, self._owners, self._top_k, MAX_PAIRS)

    def _encode(self) -> bytes:
        return encode_frame(
            frame_id=1,
            layer=0,
            rows=self._hidden,
            row_indices=None if len(self._pairs.rows) == len(self._hidden) else self._pairs.rows,
            pair_rows=self._pairs.pair_rows,
            pair_experts=self._pairs.experts,
            remaining_nanos=1,
            traceparent="",
            requests=self._step.requests_of(self._pairs.rows),
        )

    def _encode_reply(self) -> bytes:
        return encode_reply(frame_id=1, rows=self._computed, granted_pairs=1)

    def _decode_reply(self) -> ReceivedReply:
        return _decoded(self._reply)

    def _returned(self, pairs: FramePairs) -> Returned:
        rows = torch.zeros(len(pairs.positions), self._hidden_size, dtype=self._dtype)
        reply = _decoded(encode_reply(frame_id=1, rows=rows))
        return Returned(pairs, pairs.positions, reply.rows_bytes, self._dtype)

    def _combine(self) -> Sums:
        return ExactCombine()(self._replies, self._weights, self._hidden)


def _decoded(message: bytes) -> ReceivedReply:
    reply = decode_response(message).reply
    assert reply is not None, "it was written with one"
    return reply


class ExpertCompute:
    """The service's own computer on one thread, and the reading of the bytes that it
    has to read.
    """

    def __init__(self, model: Path, *, num_rows: int, top_k: int) -> None:
        checkpoint = Checkpoint.open(model)
        layer, num_experts = checkpoint.moe_layers[0], checkpoint.num_experts
        bank = Bank(checkpoint, checkpoint.dtype, torch.device("cpu"), 1 << 31)
        for expert in range(num_experts):
            bank.fill(expert, layer, expert)
        slots = random_gate(num_rows, num_experts, top_k, 0).reshape(-1).numpy()
        rows = torch.randn(num_rows, checkpoint.hidden_size).to(checkpoint.dtype)
        self._batch = [FrameWork(rows, np.repeat(np.arange(num_rows), top_k), slots)]
        self._computer = Computer(bank, threads=1, batch_invariant=False)
        self._active = [
            parameter[slot].reshape(-1)
            for slot in np.unique(slots).tolist()
            for parameter in bank.pool.parameters()
        ]
        self.num_active = len(np.unique(slots))
        self.active_bytes = sum(values.nbytes for values in self._active)

    def close(self) -> None:
        """End the computer's thread."""
        self._computer.close()

    def variants(self) -> dict[str, Callable[[], Awaitable[float]]]:
        """Milliseconds of the batch, and of ways to read the active experts' bytes once."""
        return {
            "compute": self._compute,
            "read by sum of 32-bit floats": _reading(self._active, torch.float32, torch.sum),
            "read by maximum of bytes": _reading(self._active, torch.uint8, torch.amax),
            "read by copying": _copying(self._active),
        }

    async def _compute(self) -> float:
        began = time.perf_counter_ns()
        await self._computer.compute(self._batch)
        return (time.perf_counter_ns() - began) / 1e6


def _reading(
    tensors: Sequence[torch.Tensor],
    view: torch.dtype,
    reduce: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[], Awaitable[float]]:
    async def read() -> float:
        began = time.perf_counter_ns()
        for values in tensors:
            reduce(values.view(view))
        return (time.perf_counter_ns() - began) / 1e6

    return read


def _copying(tensors: Sequence[torch.Tensor]) -> Callable[[], Awaitable[float]]:
    # Into memory that stays in the cache, so that it is the reading that takes the time.
    target = torch.empty(max(values.numel() for values in tensors), dtype=tensors[0].dtype)

    async def copy() -> float:
        began = time.perf_counter_ns()
        for values in tensors:
            target[: values.numel()].copy_(values)
        return (time.perf_counter_ns() - began) / 1e6

    return copy
