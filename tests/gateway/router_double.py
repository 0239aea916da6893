"""A router without a model: it speaks the real protocol over real gRPC, and a test decides what it
says.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc

from moesaic.v1 import common_pb2
from moesaic.v1 import router_pb2 as pb
from moesaic.v1.router_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server
from services.runtime.server import serving
from services.runtime.tls_files import TlsFiles

SERVICE_NAME = "moesaic.v1.RouterService"
DESCRIPTION = {
    "model": "tessera",
    "model_type": "qwen3_moe",
    "model_digest": "one",
    "vocab_size": 4096,
    "max_context": 64,
    "default_max_new_tokens": 16,
    "max_sequences": 8,
    "num_moe_layers": 6,
    "num_experts": 16,
    "num_experts_per_token": 2,
    "numerics_fingerprint": "cpu/test",
}


class RouterDouble(RouterServiceServicer):
    """Notes what it is told. With an `answer` it gives that to every sequence; without, the test
    speaks for it.

    It grants `sequences` and `kv_tokens` of credit, always the same, and acknowledges each Submit
    at once unless `acknowledges` is False.
    """

    def __init__(
        self,
        *,
        answer: Sequence[int] | None = None,
        sequences: int = 8,
        kv_tokens: int = 512,
        acknowledges: bool = True,
        **description: Any,
    ) -> None:
        own: dict[str, Any] = {"kv_tokens": kv_tokens, "instance": uuid4().hex}
        described: dict[str, Any] = DESCRIPTION | own | description
        self.description = pb.RouterServiceDescribeResponse(**described)
        self.submits: asyncio.Queue[list[pb.SequenceRequest]] = asyncio.Queue()
        self.cancels: asyncio.Queue[int] = asyncio.Queue()
        self.num_streams = 0
        self.num_submits = 0
        self.acknowledges = acknowledges
        self.sequences = sequences
        self.kv_tokens = kv_tokens
        self.described: asyncio.Queue[None] = asyncio.Queue()
        # Cleared, it keeps a new stream waiting for its first credit.
        self.may_begin = asyncio.Event()
        self.may_begin.set()
        # Cleared, it answers no question.
        self.answers = asyncio.Event()
        self.answers.set()
        self.answers_cancels = True
        self.cancel_receipt = common_pb2.LatencyReceipt()
        # So many messages are sent as bytes that are none.
        self.num_damaged_descriptions = self.num_damaged_responses = 0
        self.answer = answer
        self._said: asyncio.Queue[pb.RunResponse | grpc.StatusCode | None] = asyncio.Queue()

    async def Describe(self, request: pb.RouterServiceDescribeRequest, context: Any) -> Any:
        self.described.put_nowait(None)
        await self.answers.wait()
        return self.description

    async def Run(
        self, requests: AsyncIterator[pb.RunRequest], context: Any
    ) -> AsyncIterator[pb.RunResponse]:
        self.num_streams += 1
        self.num_submits = 0
        self._said = asyncio.Queue()
        await self.may_begin.wait()
        self.grant()
        async with asyncio.TaskGroup() as tasks:
            hearing = tasks.create_task(self._hear(requests))
            try:
                while (response := await self._said.get()) is not None:
                    if isinstance(response, grpc.StatusCode):
                        await context.abort(response, "as the test says")
                    yield response
                    self._said.task_done()
            finally:
                hearing.cancel()

    async def next_sequence(self) -> pb.SequenceRequest:
        """The next Submit's only sequence."""
        (sequence,) = await self.submits.get()
        return sequence

    async def next_sequences(self, count: int) -> list[pb.SequenceRequest]:
        """The next sequences in their order, in however many Submits they come."""
        sequences: list[pb.SequenceRequest] = []
        while len(sequences) < count:
            sequences += await self.submits.get()
        return sequences

    def grant(self) -> None:
        """Give the credit anew, every Submit so far acknowledged."""
        self._said.put_nowait(pb.RunResponse(credit=self._credit()))

    def say(self, *events: pb.SequenceEvent, credit: bool = False) -> None:
        """Send events in one message."""
        self._said.put_nowait(
            pb.RunResponse(events=events, credit=self._credit() if credit else None)
        )

    async def all_said(self) -> None:
        """Return when everything was sent."""
        await self._said.join()

    def break_stream(self, status: grpc.StatusCode | None = None) -> None:
        """End the stream, with whatever it carries, well or with a status."""
        self._said.put_nowait(status)

    def written_description(self, description: pb.RouterServiceDescribeResponse) -> bytes:
        """What travels for it."""
        self.num_damaged_descriptions -= 1
        return description.SerializeToString() if self.num_damaged_descriptions < 0 else b"\xff"

    def written(self, response: pb.RunResponse) -> bytes:
        """What travels for it."""
        self.num_damaged_responses -= 1
        return response.SerializeToString() if self.num_damaged_responses < 0 else b"\xff"

    async def _hear(self, requests: AsyncIterator[pb.RunRequest]) -> None:
        async for request in requests:
            for number in request.cancel.sequences:
                if self.answers_cancels:
                    self.say(
                        finished(
                            number, common_pb2.FINISH_REASON_CANCELLED, receipt=self.cancel_receipt
                        )
                    )
                self.cancels.put_nowait(number)
            if request.HasField("submit"):
                self._submitted(list(request.submit.sequences))

    def _submitted(self, sequences: list[pb.SequenceRequest]) -> None:
        self.num_submits += 1
        if self.acknowledges:
            self.grant()
        self.submits.put_nowait(sequences)
        if self.answer is not None:
            for sequence in sequences:
                events = [token(sequence.sequence, token_id) for token_id in self.answer]
                self.say(*events, finished(sequence.sequence))

    def _credit(self) -> pb.Credit:
        return pb.Credit(
            sequences=self.sequences,
            kv_tokens=self.kv_tokens,
            acknowledged_submits=self.num_submits,
        )


def token(
    number: int, token_id: int, experts: common_pb2.RoutedExperts | None = None
) -> pb.SequenceEvent:
    return pb.SequenceEvent(
        sequence=number, token=pb.SequenceToken(token_id=token_id, routed_experts=experts)
    )


def finished(
    number: int,
    reason: common_pb2.FinishReason.ValueType = common_pb2.FINISH_REASON_LENGTH,
    *,
    status: grpc.StatusCode | None = None,
    message: str = "",
    **finish: Any,
) -> pb.SequenceEvent:
    code = 0 if status is None else status.value[0]
    return pb.SequenceEvent(
        sequence=number,
        finish=pb.SequenceFinish(reason=reason, status_code=code, message=message, **finish),
    )


def refused(number: int) -> pb.SequenceEvent:
    return finished(
        number,
        common_pb2.FINISH_REASON_ERROR,
        status=grpc.StatusCode.RESOURCE_EXHAUSTED,
        message="the KV cache is full",
    )


@asynccontextmanager
async def serving_router(
    double: RouterDouble, *, tls: TlsFiles | None = None
) -> AsyncIterator[str]:
    """Serve a double; yields its address."""

    def register(server: grpc.aio.Server) -> None:
        add_RouterServiceServicer_to_server(double, server)
        describe = grpc.unary_unary_rpc_method_handler(
            double.Describe, pb.RouterServiceDescribeRequest.FromString, double.written_description
        )
        run = grpc.stream_stream_rpc_method_handler(
            double.Run, pb.RunRequest.FromString, double.written
        )
        server.add_registered_method_handlers(SERVICE_NAME, {"Describe": describe, "Run": run})

    async with serving(
        register, listen="127.0.0.1:0", service_names=[SERVICE_NAME], drain_seconds=0, tls=tls
    ) as port:
        yield f"127.0.0.1:{port}"
