"""A router as an expert service sees one, and a gate that holds batches up."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.metrics import Meter

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.expert import metrics
from services.expert.admitted_frame import AdmittedFrame
from services.expert.app import ExpertParts, running
from services.expert.bank import Bank
from services.expert.batcher import Batcher
from services.expert.compute import Computed, Computer, FrameWork
from services.expert.grouped import GroupedExperts
from services.expert.loading import LOADING_TIMES, LoadingTimes
from services.expert.plane import RECORD_SECONDS
from services.expert.settings import ExpertSettings
from services.model.checkpoint import Checkpoint
from services.runtime.channels import open_channel
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles
from services.wire.frames import decode_response, encode_cancel, encode_frame
from services.wire.received import ReceivedReply, Response
from tests.local_experts import build_experts

EXPERT = Role.EXPERT.server_name
MINUTE_NANOS = 60 * 10**9
# Of the largest result: sums in another order, and in bfloat16 a rounding here and there that falls
# the other way.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


class Carrier(Enum):
    """How streams of frames come to the service, and who answers usual ones."""

    GRPC = "gRPC"
    NATIVE = "native, answered by the native thread"
    HANDED_OVER = "native, all handed over to Python"


def encoded(
    frame_id: int,
    rows: torch.Tensor,
    pairs: Sequence[tuple[int, int]],
    *,
    layer: int = 1,
    remaining_nanos: int = MINUTE_NANOS,
    requests: Sequence[int] = (),
    traceparent: str = "",
    weights: Sequence[float] | None = None,
    checksum: bool = False,
) -> bytes:
    """A message with a frame; `pairs` are (row, expert), each with a weight where sums are asked
    for.
    """
    return encode_frame(
        frame_id=frame_id,
        layer=layer,
        rows=rows,
        pair_rows=np.array([row for row, _ in pairs], np.uint32),
        pair_experts=np.array([expert for _, expert in pairs], np.uint32),
        remaining_nanos=remaining_nanos,
        traceparent=traceparent,
        requests=requests,
        pair_weights=None if weights is None else np.array(weights, np.float32),
        checksum=checksum,
    )


class Stream:
    """One lane's stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = channel.stream_stream("/moesaic.v1.ExpertService/Dispatch")()
        self.granted_pairs = 0

    async def send(
        self,
        frame_id: int,
        rows: torch.Tensor,
        pairs: Sequence[tuple[int, int]],
        *,
        layer: int = 1,
        remaining_nanos: int = MINUTE_NANOS,
        requests: Sequence[int] = (),
        traceparent: str = "",
        weights: Sequence[float] | None = None,
    ) -> None:
        """Send a frame, as `encoded` has it."""
        data = encoded(
            frame_id,
            rows,
            pairs,
            layer=layer,
            remaining_nanos=remaining_nanos,
            requests=requests,
            traceparent=traceparent,
            weights=weights,
        )
        await self.call.write(data)

    async def cancel(self, *requests: int) -> None:
        await self.call.write(encode_cancel(requests))

    async def receive(self) -> Response:
        data = await self.call.read()
        assert data is not grpc.aio.EOF, "the service ended the stream"
        response = decode_response(data)
        self.granted_pairs = max(self.granted_pairs, response.granted_pairs)
        return response

    async def reply(self) -> ReceivedReply:
        """The next reply; the grant before it is noted."""
        while True:
            response = await self.receive()
            if response.reply is not None:
                return response.reply


class Client:
    """Everything that a router asks of one service."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        dispatch_channel: grpc.aio.Channel,
        parts: ExpertParts,
        port: int,
    ) -> None:
        self.channel = channel
        self.dispatch_channel = dispatch_channel
        self.parts = parts
        self.port = port
        self.stub = expert_pb2_grpc.ExpertServiceStub(channel)

    def open_stream(self) -> Stream:
        return Stream(self.dispatch_channel)

    def drain(self) -> None:
        """As at the service's end."""
        self.parts.service.drain()
        self.parts.plane.drain(5)

    async def generation(self) -> int:
        return (await self.hosting()).generation

    async def hosting(self) -> expert_pb2.WatchHostingResponse:
        call = self.stub.WatchHosting(expert_pb2.WatchHostingRequest())
        hosting: expert_pb2.WatchHostingResponse = await call.read()
        call.cancel()
        return hosting

    async def load(
        self, *keys: tuple[int, int], **fields: Any
    ) -> list[expert_pb2.LoadExpertsResponse]:
        """Load experts given as (layer, expert)."""
        request = await self.load_request(*keys, **fields)
        return [response async for response in self.stub.LoadExperts(request)]

    async def load_request(
        self, *keys: tuple[int, int], **fields: Any
    ) -> expert_pb2.LoadExpertsRequest:
        asked: dict[str, Any] = {
            "expected_generation": await self.generation(),
            "model_digest": self.parts.checkpoint.digest,
            "experts": [expert_pb2.ExpertId(layer=layer, expert=expert) for layer, expert in keys],
        } | fields
        return expert_pb2.LoadExpertsRequest(**asked)

    async def unload(
        self, *keys: tuple[int, int], **fields: Any
    ) -> expert_pb2.UnloadExpertsResponse:
        fields = {"expected_generation": await self.generation()} | fields
        experts = [expert_pb2.ExpertId(layer=layer, expert=expert) for layer, expert in keys]
        return await self.stub.UnloadExperts(
            expert_pb2.UnloadExpertsRequest(experts=experts, **fields)
        )

    async def health(self) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        return (
            await stub.Check(health_pb2.HealthCheckRequest(service="moesaic.v1.ExpertService"))
        ).status


@asynccontextmanager
async def expert_service(
    model: Path,
    carrier: Carrier = Carrier.GRPC,
    *,
    times: LoadingTimes = LOADING_TIMES,
    meter: Meter = metrics.meter,
    record_seconds: float = RECORD_SECONDS,
    tls: TlsFiles | None = None,
    **settings: Any,
) -> AsyncIterator[Client]:
    """A real service on ports of its own, and a client of it, with `tls`, whose streams go by the
    carrier.
    """
    fields: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "model": model,
        "drain_seconds": 5,
    } | settings
    async with running(
        ExpertSettings(**fields), times=times, meter=meter, record_seconds=record_seconds
    ) as (parts, port):
        dispatch_port = port if carrier is Carrier.GRPC else parts.plane.port
        assert dispatch_port, "there is no native plane"
        async with (
            open_channel(f"127.0.0.1:{port}", tls=tls, server_name=EXPERT) as channel,
            open_channel(
                f"127.0.0.1:{dispatch_port}", tls=tls, server_name=EXPERT
            ) as dispatch_channel,
        ):
            yield Client(channel, dispatch_channel, parts, port)


class Gate:
    """Holds batches up until it is opened, and tells when frames are queued and batches begin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = asyncio.Event()
        self.began = asyncio.Semaphore(0)
        self.queued = asyncio.Semaphore(0)
        self.dropped = asyncio.Semaphore(0)
        self.batches: list[int] = []
        compute, submit, drop = Computer.compute, Batcher.submit, Batcher.drop

        async def gated_compute(computer: Computer, batch: Sequence[FrameWork]) -> Computed:
            self.batches.append(len(batch))
            self.began.release()
            await self.opened.wait()
            return await compute(computer, batch)

        def counted_submit(batcher: Batcher, admitted: AdmittedFrame) -> None:
            submit(batcher, admitted)
            self.queued.release()

        def counted_drop(batcher: Batcher, admitted: AdmittedFrame) -> bool:
            is_dropped = drop(batcher, admitted)
            if is_dropped:
                self.dropped.release()
            return is_dropped

        monkeypatch.setattr(Computer, "compute", gated_compute)
        monkeypatch.setattr(Batcher, "drop", counted_drop)
        monkeypatch.setattr(Batcher, "submit", counted_submit)


def event_of_call(monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str) -> asyncio.Event:
    """Set once the method has been called on the event loop."""
    called, original = asyncio.Event(), getattr(owner, name)

    def call(*arguments: Any) -> Any:
        result = original(*arguments)
        called.set()
        return result

    monkeypatch.setattr(owner, name, call)
    return called


class ThreadGate:
    """Holds a thread up before the n-th call of a method."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owner: type[Bank] | type[GroupedExperts],
        name: str,
        call: int,
    ) -> None:
        self.reached = asyncio.Event()
        self._opened = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._left = call
        original = getattr(owner, name)

        def gated(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self._loop.call_soon_threadsafe(self.reached.set)
                assert self._opened.wait(30)
            return original(*arguments)

        monkeypatch.setattr(owner, name, gated)

    def open(self) -> None:
        self._opened.set()


def expected_rows(
    checkpoint: Checkpoint, layer: int, rows: torch.Tensor, pairs: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """What the family's own module, holding all experts of the layer, makes of the pairs; not
    weighted.
    """
    module = build_experts(checkpoint, layer, range(checkpoint.num_experts), rows.dtype)
    chosen = rows[[row for row, _ in pairs]]
    experts = torch.tensor([[expert] for _, expert in pairs])
    computed: torch.Tensor = module(chosen, experts, torch.ones(len(pairs), 1, dtype=rows.dtype))
    return computed


def assert_close(computed: torch.Tensor, expected: torch.Tensor) -> None:
    """Within the rounding of another way to compute the same."""
    assert computed.dtype is expected.dtype
    largest = expected.abs().max().item()
    difference = (computed.float() - expected.float()).abs().max().item()
    assert difference <= TOLERANCE[expected.dtype] * largest
