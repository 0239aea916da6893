"""A lying expert service: stands before a good one and makes other replies of its replies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.router.peers.transport import DISPATCH
from services.runtime.channels import open_channel
from services.runtime.server import serving
from services.wire.frames import decode_request, decode_response
from services.wire.received import ReceivedFrame
from tests.chaos.lies import LATE, LATE_SECONDS, LIES, SILENT_LIES, StreamEnds

ALL_LIES = {**LIES, **SILENT_LIES}
SERVICE_NAME, METHOD = DISPATCH.strip("/").split("/")


@dataclass
class Frames:
    """What a lying service was sent since it began to lie."""

    num_frames: int = 0
    num_lies: int = 0  # about frames of requests


class LyingService(expert_pb2_grpc.ExpertServiceServicer):
    """Says what the service behind `channel` says, but lies about frames while a kind of lie is
    set. With `spares_trials` it answers well what stands for no request.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.kind: str | None = None
        self.spares_trials = False
        self.sent = Frames()
        self._stub = expert_pb2_grpc.ExpertServiceStub(channel)
        self._behind = channel.stream_stream(DISPATCH)
        self._port = 0
        self._start = 0
        self._again = asyncio.Event()

    def lie(self, kind: str, *, spares_trials: bool = False) -> None:
        """Lie in this way from now on."""
        self.kind, self.spares_trials, self.sent = kind, spares_trials, Frames()

    def start_again(self) -> None:
        """Be good, as another process that was started at its place."""
        self.kind, self._start = None, self._start + 1
        ended, self._again = self._again, asyncio.Event()
        ended.set()

    @property
    def suffix(self) -> str:
        """What the instance of its latest start ends with."""
        return f"-{self._start}"

    def listens_on(self, port: int) -> None:
        """Streams of frames are taken at the same port."""
        self._port = port

    async def Describe(
        self, request: expert_pb2.ExpertServiceDescribeRequest, context: grpc.aio.ServicerContext
    ) -> expert_pb2.ExpertServiceDescribeResponse:
        description = await self._stub.Describe(request)
        description.dispatch_port = self._port
        description.instance += f"-{self._start}"
        return description

    async def WatchHosting(
        self, request: expert_pb2.WatchHostingRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[expert_pb2.WatchHostingResponse]:
        suffix = f"-{self._start}"
        async for hosting in self._stub.WatchHosting(request):
            hosting.instance += suffix
            yield hosting

    async def LoadExperts(
        self, request: expert_pb2.LoadExpertsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[expert_pb2.LoadExpertsResponse]:
        async for response in self._stub.LoadExperts(request):
            yield response

    async def UnloadExperts(
        self, request: expert_pb2.UnloadExpertsRequest, context: grpc.aio.ServicerContext
    ) -> expert_pb2.UnloadExpertsResponse:
        return await self._stub.UnloadExperts(request)

    async def dispatch(
        self, requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> None:
        """Take a stream's messages; each answer comes from the service behind."""
        frames: dict[int, ReceivedFrame] = {}
        call, ended = self._behind(), self._again
        try:
            async with asyncio.TaskGroup() as ways:
                there = ways.create_task(self._hand_on(requests, call, frames))
                back = ways.create_task(self._answer(call, context, frames))
                over = ways.create_task(ended.wait())
                await asyncio.wait((there, back, over), return_when=asyncio.FIRST_COMPLETED)
                for way in (there, back, over):
                    way.cancel()
        except* StreamEnds:
            await context.abort(grpc.StatusCode.INTERNAL, "it is over")
        finally:
            call.cancel()

    async def _hand_on(
        self,
        requests: AsyncIterator[bytes],
        call: "grpc.aio.StreamStreamCall[bytes, bytes]",
        frames: dict[int, ReceivedFrame],
    ) -> None:
        async for message in requests:
            frame = decode_request(message)
            if isinstance(frame, ReceivedFrame):
                frames[frame.frame_id] = frame
                self.sent.num_frames += self.kind is not None
            await call.write(message)

    async def _answer(
        self,
        call: "grpc.aio.StreamStreamCall[bytes, bytes]",
        context: "grpc.aio.ServicerContext[bytes, bytes]",
        frames: dict[int, ReceivedFrame],
    ) -> None:
        while (message := await call.read()) is not grpc.aio.EOF:
            for said in await self._said_of(message, frames):
                await context.write(said)

    async def _said_of(self, message: bytes, frames: dict[int, ReceivedFrame]) -> list[bytes]:
        reply, granted_pairs = decode_response(message)
        frame = None if reply is None else frames.pop(reply.frame_id, None)
        if reply is None or frame is None or self.kind is None:
            return [message]
        if self.spares_trials and not frame.requests:
            return [message]
        self.sent.num_lies += bool(frame.requests)
        if self.kind == LATE:
            await asyncio.sleep(LATE_SECONDS)
            return [message]
        hidden_size = len(frame.rows_bytes) // frame.num_rows // frame.dtype.itemsize
        rows = reply.rows(frame.dtype, hidden_size)
        return list(ALL_LIES[self.kind](frame, rows, granted_pairs))


@asynccontextmanager
async def lying_service(address: str) -> AsyncIterator[tuple[LyingService, str]]:
    """One before the service at `address`, good at first; it, and its own address."""
    async with open_channel(address) as channel:
        service = LyingService(channel)
        handlers = {METHOD: grpc.stream_stream_rpc_method_handler(service.dispatch)}

        def register(server: grpc.aio.Server) -> None:
            expert_pb2_grpc.add_ExpertServiceServicer_to_server(service, server)
            server.add_registered_method_handlers(SERVICE_NAME, handlers)

        async with serving(
            register, listen="127.0.0.1:0", service_names=[SERVICE_NAME], drain_seconds=0
        ) as port:
            service.listens_on(port)
            yield service, f"127.0.0.1:{port}"
