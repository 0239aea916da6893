"""An expert service over real gRPC that does what a test tells it to, wrongly where it
is asked to.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.model.checkpoint import Checkpoint
from services.router.peers.expected import Expected
from services.runtime.server import serving
from services.wire.frames import ELEMENT_TYPES, decode_request, encode_reply
from services.wire.received import ReceivedFrame

SERVICE_NAME = "moesaic.v1.ExpertService"


def expected_of(checkpoint: Checkpoint) -> Expected:
    """What a router of this checkpoint expects."""
    return Expected(
        model_digest=checkpoint.digest,
        element_type=ELEMENT_TYPES[checkpoint.dtype],
        wire_type=ELEMENT_TYPES[checkpoint.dtype],
        sums_pairs=False,
        hidden_size=checkpoint.hidden_size,
        batch_invariant=False,
        moe_layers=tuple(checkpoint.moe_layers),
        num_experts=checkpoint.num_experts,
    )


class ScriptedService(expert_pb2_grpc.ExpertServiceServicer):
    """Hosts what `host` names, answers trial frames, leaves others unanswered and loads without
    end; its fields say how else it behaves.
    """

    def __init__(self, checkpoint: Checkpoint, *, has_dispatch_port: bool = False) -> None:
        self._has_dispatch_port = has_dispatch_port
        self.description = expert_pb2.ExpertServiceDescribeResponse(
            instance="first",
            model_digest=checkpoint.digest,
            dtype=ELEMENT_TYPES[checkpoint.dtype],
            hidden_size=checkpoint.hidden_size,
            moe_layers=checkpoint.moe_layers,
            expert_bytes=[1] * len(checkpoint.moe_layers),
            num_experts=checkpoint.num_experts,
            max_frame_bytes=1 << 20,
        )
        self.hosting = expert_pb2.WatchHostingResponse(
            instance="first", generation=1, free_memory_bytes=1 << 30
        )
        self.changed = asyncio.Event()
        self.num_streams = 0
        self.grants = True
        self.computes = True
        self.trials: list[ReceivedFrame] = []
        self.cancels_first_stream = False
        self._stream_end = asyncio.Event()
        # So many are sent as bytes that are no message.
        self.num_damaged_hostings = self.num_damaged_descriptions = 0
        self.loading = asyncio.Event()
        self.load_error: tuple[grpc.StatusCode, str] | None = None

    def host(self, *experts: tuple[int, int]) -> None:
        """Host these experts, all ready."""
        del self.hosting.experts[:]
        for layer, expert in experts:
            self.hosting.experts.add(
                layer=layer,
                expert=expert,
                content_hash=b"same",
                state=expert_pb2.EXPERT_STATE_READY,
            )
        self.hosting.generation += 1
        self.changed.set()

    def end_streams(self) -> None:
        """End the streams that there are; later ones stay."""
        ends, self._stream_end = self._stream_end, asyncio.Event()
        ends.set()

    def written(self, hosting: expert_pb2.WatchHostingResponse) -> bytes:
        """What travels for a hosting."""
        if self.num_damaged_hostings:
            self.num_damaged_hostings -= 1
            return b"\xff"
        return hosting.SerializeToString()

    def written_description(self, description: expert_pb2.ExpertServiceDescribeResponse) -> bytes:
        """What travels for a description."""
        self.num_damaged_descriptions -= 1
        return description.SerializeToString() if self.num_damaged_descriptions < 0 else b"\xff"

    def listens_on(self, port: int) -> None:
        """It is served there; all of its calls are, whichever port for Dispatch it describes."""
        self.description.dispatch_port = port if self._has_dispatch_port else 0

    async def Describe(self, request: object, context: grpc.aio.ServicerContext) -> object:
        return self.description

    async def WatchHosting(
        self, request: object, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[object]:
        while True:
            self.changed.clear()
            yield self.hosting
            await self.changed.wait()

    async def LoadExperts(
        self, request: object, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[object]:
        self.loading.set()
        if self.load_error is not None:
            await context.abort(*self.load_error)
        yield expert_pb2.LoadExpertsResponse(num_total=1)
        await asyncio.Event().wait()

    async def UnloadExperts(self, request: object, context: grpc.aio.ServicerContext) -> object:
        return expert_pb2.UnloadExpertsResponse(generation=self.hosting.generation)

    async def Dispatch(
        self,
        requests: AsyncIterator[expert_pb2.DispatchRequest],
        context: grpc.aio.ServicerContext,
    ) -> None:
        self.num_streams += 1
        ends = self._stream_end
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read_all(requests, context))
            if self.grants:
                await context.write(expert_pb2.DispatchResponse(granted_pairs=1000))
            if self.cancels_first_stream and self.num_streams == 1:
                await context.abort(grpc.StatusCode.CANCELLED, "given up")
            await ends.wait()
            reading.cancel()

    async def _read_all(
        self,
        requests: AsyncIterator[expert_pb2.DispatchRequest],
        context: grpc.aio.ServicerContext,
    ) -> None:
        async for request in requests:
            if not request.HasField("frame") or request.frame.requests:
                continue
            frame = decode_request(request.SerializeToString())
            assert isinstance(frame, ReceivedFrame)
            self.trials.append(frame)
            if self.computes:
                reply = encode_reply(
                    frame_id=frame.frame_id,
                    rows=frame.rows(self.description.hidden_size),
                    checksum=frame.has_checksum,
                )
                await context.write(expert_pb2.DispatchResponse.FromString(reply))


@asynccontextmanager
async def served(service: ScriptedService) -> AsyncIterator[str]:
    """Serve it; yields its address."""

    def register(server: grpc.aio.Server) -> None:
        expert_pb2_grpc.add_ExpertServiceServicer_to_server(service, server)
        watch = grpc.unary_stream_rpc_method_handler(
            service.WatchHosting, expert_pb2.WatchHostingRequest.FromString, service.written
        )
        describe = grpc.unary_unary_rpc_method_handler(
            service.Describe,
            expert_pb2.ExpertServiceDescribeRequest.FromString,
            service.written_description,
        )
        server.add_registered_method_handlers(
            SERVICE_NAME, {"WatchHosting": watch, "Describe": describe}
        )

    async with serving(
        register, listen="127.0.0.1:0", service_names=[SERVICE_NAME], drain_seconds=0
    ) as port:
        service.listens_on(port)
        yield f"127.0.0.1:{port}"
