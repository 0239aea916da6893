"""Requests through the gateway, all at once, timed where a client would time them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from bench.rig.generated import Generated
from moesaic.v1 import common_pb2, generation_pb2, generation_pb2_grpc
from services.runtime.channels import open_channel
from services.runtime.tls_files import TlsFiles

REQUEST_SECONDS = 600.0


@dataclass
class _Stream:
    token_seconds: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    receipt: common_pb2.LatencyReceipt = field(default_factory=common_pb2.LatencyReceipt)


class ClientLoad:
    """A client with so many connections to a gateway, which its requests take in turn; they ask for
    `trace_detail`.
    """

    def __init__(
        self,
        address: str,
        *,
        num_new_tokens: int,
        num_connections: int = 1,
        trace_detail: "common_pb2.TraceDetail.ValueType" = common_pb2.TRACE_DETAIL_UNSPECIFIED,
        tls: TlsFiles | None = None,
    ) -> None:
        self._channels: list[grpc.aio.Channel] = [
            open_channel(address, tls=tls, is_apart=True) for _ in range(num_connections)
        ]
        self._stubs = [
            generation_pb2_grpc.GenerationServiceStub(channel) for channel in self._channels
        ]
        self._num_new_tokens = num_new_tokens
        self._trace_detail = trace_detail

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def generate(
        self, prompts: Sequence[Sequence[int]], *, concurrency: int | None = None
    ) -> Generated:
        """Continue every prompt, greedily and past the end of sequence: all at once, or
        `concurrency` at a time.

        Raises AioRpcError when one fails.
        """
        places = asyncio.Semaphore(concurrency or len(prompts))
        began = time.perf_counter()

        async def one(number: int, prompt: Sequence[int]) -> _Stream:
            async with places:
                return await self._one(self._stubs[number % len(self._stubs)], prompt, began)

        streams = await asyncio.gather(*(one(*numbered) for numbered in enumerate(prompts)))
        seconds = time.perf_counter() - began
        return Generated(
            seconds,
            [stream.token_seconds for stream in streams],
            [stream.token_ids for stream in streams],
            receipts=[stream.receipt for stream in streams],
        )

    async def _one(
        self,
        stub: generation_pb2_grpc.GenerationServiceStub,
        prompt: Sequence[int],
        began: float,
    ) -> _Stream:
        request = generation_pb2.GenerateRequest(
            token_ids=generation_pb2.TokenIds(ids=prompt), trace_detail=self._trace_detail
        )
        request.sampling.temperature = 0.0
        request.stop.max_new_tokens = self._num_new_tokens
        request.stop.ignore_eos = True
        stream = _Stream()
        async for response in stub.Generate(request, timeout=REQUEST_SECONDS):
            now = time.perf_counter() - began
            if response.HasField("completion"):
                stream.receipt = response.completion.receipt
            stream.token_ids += response.delta.token_ids
            stream.token_seconds += [now] * len(response.delta.token_ids)
        return stream
