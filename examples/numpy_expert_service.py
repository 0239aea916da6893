"""An expert service written from protos/moesaic/v1/expert.proto alone, in plain numpy and grpcio.

    python -m examples.numpy_expert_service CHECKPOINT [HOST:PORT]

It serves checkpoints whose experts stand one by one in the files, with gate, up and down
projection and SiLU between (OLMoE, Qwen3-MoE and others), in float32 or bfloat16. It hosts what
routers ask for, computes in float32, and is slow. Nothing of moesaic is used but the stubs that are
generated from the proto.
"""

import asyncio
import sys
import uuid
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from examples.numpy_checkpoint import TYPES, Checkpoint, Floats, Key, bytes_of, floats_of
from moesaic.v1 import common_pb2, expert_pb2, expert_pb2_grpc

Hosted = tuple[dict[str, Floats], bytes]  # an expert's projections, and its content hash

MAX_FRAME_BYTES = 4 << 20
WINDOW_PAIRS = 1 << 20
INVALID_ARGUMENT, DATA_LOSS = 3, 15


class ExpertService(expert_pb2_grpc.ExpertServiceServicer):
    """Hosts experts and applies them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._digest = checkpoint.digest()
        self._instance = uuid.uuid4().hex
        self._generation = 1
        self._experts: dict[Key, Hosted] = {}
        self._changed = asyncio.Event()
        weights, _ = checkpoint.read(min(checkpoint.paths))
        self._expert_bytes = sum(weight.nbytes for weight in weights.values())
        self._memory = self._expert_bytes * (len(checkpoint.paths) + 1)

    async def Describe(self, request: Any, context: Any) -> Any:
        checkpoint, element_type = self._checkpoint, TYPES[self._checkpoint.dtype]
        return expert_pb2.ExpertServiceDescribeResponse(
            instance=self._instance,
            model=checkpoint.name,
            model_digest=self._digest,
            device="cpu",
            dtype=element_type,
            hidden_size=checkpoint.hidden_size,
            expert_bytes=[self._expert_bytes] * len(checkpoint.layers),
            moe_layers=checkpoint.layers,
            num_experts=checkpoint.num_experts,
            expert_memory_bytes=self._memory,
            free_memory_bytes=self._free_bytes(),
            numerics_fingerprint=f"numpy {np.__version__}",
            max_frame_bytes=MAX_FRAME_BYTES,
        )

    async def WatchHosting(self, request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            changed = self._changed
            yield expert_pb2.WatchHostingResponse(
                instance=self._instance,
                generation=self._generation,
                experts=[
                    expert_pb2.HostedExpert(
                        layer=layer,
                        expert=expert,
                        content_hash=content_hash,
                        state=expert_pb2.EXPERT_STATE_READY,
                    )
                    for (layer, expert), (_, content_hash) in sorted(self._experts.items())
                ],
                free_memory_bytes=self._free_bytes(),
            )
            await changed.wait()

    async def LoadExperts(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._check(request, context)
        if request.model_digest != self._digest:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another checkpoint")
        read: dict[Key, Hosted] = {}
        for asked in request.experts:
            key = asked.layer, asked.expert
            if key in self._experts:
                read[key] = self._experts[key]
            else:
                read[key] = await asyncio.to_thread(self._checkpoint.read, key)
            if asked.content_hash not in (b"", read[key][1]):
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{key} is another")
        self._host(self._experts | read)
        num = len(request.experts)
        yield expert_pb2.LoadExpertsResponse(
            num_loaded=num, num_total=num, generation=self._generation
        )

    async def UnloadExperts(self, request: Any, context: Any) -> Any:
        await self._check(request, context)
        gone = {(asked.layer, asked.expert) for asked in request.experts}
        self._host({key: one for key, one in self._experts.items() if key not in gone})
        return expert_pb2.UnloadExpertsResponse(
            generation=self._generation, free_memory_bytes=self._free_bytes()
        )

    async def Dispatch(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        granted = WINDOW_PAIRS
        yield expert_pb2.DispatchResponse(granted_pairs=granted)
        async for request in requests:
            if request.HasField("frame"):
                granted += len(request.frame.pair_rows) // 4
                reply = self._answer(request.frame)
                yield expert_pb2.DispatchResponse(reply=reply, granted_pairs=granted)

    async def _check(self, request: Any, context: Any) -> None:
        if request.expected_generation != self._generation:
            await context.abort(grpc.StatusCode.ABORTED, f"the generation is {self._generation}")
        if any((one.layer, one.expert) not in self._checkpoint.paths for one in request.experts):
            await context.abort(grpc.StatusCode.NOT_FOUND, "the model has no such expert")

    def _host(self, experts: dict[Key, Hosted]) -> None:
        if experts.keys() != self._experts.keys():
            self._experts, self._generation = experts, self._generation + 1
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _free_bytes(self) -> int:
        return self._memory - self._expert_bytes * len(self._experts)

    def _answer(self, frame: Any) -> Any:
        reply = expert_pb2.FrameReply(frame_id=frame.frame_id, batch_frames=1)
        fault = _fault(frame, self._checkpoint.hidden_size, TYPES[self._checkpoint.dtype])
        if fault is not None:
            reply.error.status_code, reply.error.message = fault
        else:
            self._compute(frame, reply)
        if frame.HasField("checksum"):
            failed = b"".join(
                np.array([failure.reason, *failure.pairs], "<u4").tobytes()
                for failure in reply.failures
            )
            reply.checksum = zlib.crc32(_words(frame.frame_id, 8) + failed + reply.rows)
        return reply

    def _compute(self, frame: Any, reply: Any) -> None:
        rows = floats_of(frame.rows, frame.dtype).reshape(frame.num_rows, -1)
        pair_rows = np.frombuffer(frame.pair_rows, "<u4")
        pair_experts = np.frombuffer(frame.pair_experts, "<u4")
        outputs = np.empty((len(pair_rows), rows.shape[1]), np.float32)
        is_hosted = np.ones(len(pair_rows), bool)
        for expert in set(pair_experts.tolist()):
            mine, hosted = pair_experts == expert, self._experts.get((frame.layer, expert))
            if hosted is None:
                is_hosted[mine] = False
            else:
                outputs[mine] = _apply(hosted[0], rows[pair_rows[mine]])
        if not is_hosted.all():
            reply.failures.add(
                reason=expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED,
                pairs=np.flatnonzero(~is_hosted).tolist(),
            )
        reply.rows = bytes_of(outputs[is_hosted], frame.dtype)


def _apply(weights: dict[str, Floats], rows: Floats) -> Floats:
    gate, up = rows @ weights["gate_proj"].T, rows @ weights["up_proj"].T
    with np.errstate(over="ignore"):  # then the gate is shut
        outputs: Floats = (gate / (1 + np.exp(-gate)) * up) @ weights["down_proj"].T
    return outputs


def _fault(frame: Any, hidden_size: int, element_type: int) -> tuple[int, str] | None:
    """What a frame is refused for: a status code and a message."""
    numbers = [_words(frame.frame_id, 8)]
    numbers += [_words(value, 4) for value in (frame.layer, frame.dtype, frame.num_rows)]
    parts = (*numbers, frame.pair_rows, frame.pair_experts, frame.pair_weights, frame.rows)
    if frame.HasField("checksum") and frame.checksum != zlib.crc32(b"".join(parts)):
        return DATA_LOSS, "the checksum is wrong"
    width = hidden_size * (4 if element_type == common_pb2.ELEMENT_TYPE_FLOAT32 else 2)
    if frame.dtype != element_type or len(frame.rows) != frame.num_rows * width:
        return INVALID_ARGUMENT, "rows: another type or number of bytes than the frame says"
    if len(frame.pair_rows) != len(frame.pair_experts) or len(frame.pair_rows) % 4:
        return INVALID_ARGUMENT, "pair_rows and pair_experts: not four bytes for each pair"
    if any(np.frombuffer(frame.pair_rows, "<u4") >= frame.num_rows):
        return INVALID_ARGUMENT, "pair_rows: a row that is not in the frame"
    if frame.pair_weights:
        return INVALID_ARGUMENT, "pair_weights: this service does not sum pairs"
    return None


def _words(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


@asynccontextmanager
async def serving(directory: Path, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serve until the block ends; yields the address."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 2 * MAX_FRAME_BYTES)])
    service = ExpertService(Checkpoint(directory))
    expert_pb2_grpc.add_ExpertServiceServicer_to_server(service, server)
    port = server.add_insecure_port(listen)
    await server.start()
    try:
        yield f"{listen.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(0)


async def main(directory: str, listen: str = "127.0.0.1:50053") -> None:
    """Serve until the process is ended."""
    async with serving(Path(directory), listen) as address:
        print(f"serving the experts of {directory} on {address}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
