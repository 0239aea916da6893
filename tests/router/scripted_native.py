"""Scripted expert services over real gRPC in a thread of their own, with native streams to them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count

import grpc
import torch

from services.router.peers.native_transport import NativeTransport
from services.router.peers.pace import Pace
from services.router.peers.service_behaviour import ServiceBehaviour
from services.router.peers.stream import ExpertStream
from services.router.peers.transport import DISPATCH
from services.router.peers.trust import Trust
from services.runtime.connected_socket import connected_socket
from services.runtime.server import serving
from services.wire.errors import ServingError
from services.wire.frames import decode_request, encode_grant
from services.wire.received import ReceivedFrame
from tests.router.behaviours import behaviour_of
from tests.router.scripted_streams import Behaviour, ScriptedStream, well

SERVICE, METHOD = DISPATCH.strip("/").split("/")
FIRST_CREDIT = 1 << 20


class ScriptedService(ScriptedStream):
    """Answers a frame as a scripted stream does, once it may; where its behaviour raises it breaks
    the stream off.
    """

    def __init__(self, scale: torch.Tensor, behaviour: Behaviour = well) -> None:
        super().__init__(scale, behaviour)
        self.credit = FIRST_CREDIT
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._came = threading.Semaphore(0)

    async def until_frame(self) -> None:
        """Return once a frame came, or one more than the last time."""
        await asyncio.to_thread(self._came.acquire, timeout=30)

    async def serve(
        self, requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> None:
        await context.write(encode_grant(self.credit))
        async for message in requests:
            frame = decode_request(message)
            if not isinstance(frame, ReceivedFrame):
                continue
            self.frames.append(frame)
            self._came.release()
            if not self.may_answer.is_set():
                await asyncio.to_thread(self.may_answer.wait, 30)
            try:
                answer = self.answer_to(frame)
            except ServingError as error:
                await context.abort(error.status, str(error))
            if answer is not None:
                await context.write(answer)


@dataclass
class NativeService:
    """What a dispatcher uses: the one stream, by a native transport."""

    address: str
    behaviour: ServiceBehaviour
    streams: list[ExpertStream]
    pace: Pace
    trust: Trust


@asynccontextmanager
async def native_services(
    *scripted: ScriptedService, floor_seconds: float = 30.0
) -> AsyncIterator[list[NativeService]]:
    """Serve them, and connect to all of them, named service-0 and so on."""
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(_served_elsewhere(scripted))
        yield [
            await stack.enter_async_context(_connected(port, f"service-{index}", floor_seconds))
            for index, port in enumerate(ports)
        ]


@asynccontextmanager
async def _served_elsewhere(scripted: Sequence[ScriptedService]) -> AsyncIterator[list[int]]:
    """In a thread with an event loop of its own, as other processes are; yields the ports."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, list[int]]] = Future()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            ports = [await stack.enter_async_context(_served(one)) for one in scripted]
            stop = asyncio.Event()
            started.set_result((asyncio.get_running_loop(), stop, ports))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    loop, stop, ports = await asyncio.wrap_future(started)
    try:
        yield ports
    finally:
        for one in scripted:
            one.may_answer.set()
        loop.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join)


@asynccontextmanager
async def _served(scripted: ScriptedService) -> AsyncIterator[int]:
    handlers = {METHOD: grpc.stream_stream_rpc_method_handler(scripted.serve)}

    def register(server: grpc.aio.Server) -> None:
        server.add_registered_method_handlers(SERVICE, handlers)

    async with serving(
        register, listen="127.0.0.1:0", service_names=[SERVICE], drain_seconds=0
    ) as port:
        yield port


@asynccontextmanager
async def _connected(port: int, name: str, floor_seconds: float) -> AsyncIterator[NativeService]:
    authority = f"127.0.0.1:{port}"
    connected = await connected_socket(authority, port, timeout_seconds=10)
    behaviour = behaviour_of(name, floor_seconds)
    changed = asyncio.Event()
    transport = NativeTransport(connected, authority, name)
    stream = ExpertStream(
        name, lambda: transport, behaviour, changed.set, new_frame_id=count().__next__
    )
    running = asyncio.create_task(stream.run())
    await changed.wait()
    assert stream.is_up
    try:
        yield NativeService(name, behaviour, [stream], behaviour.pace, behaviour.trust)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
