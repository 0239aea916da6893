"""Requests over gRPC, all at once: by one connection, or by one for each request as over HTTP."""

import asyncio
import time
from collections.abc import Sequence

import grpc

from bench.door.timed import Timed
from bench.harness.failure import BenchFailed
from moesaic.v1 import common_pb2, generation_pb2
from moesaic.v1.generation_pb2_grpc import GenerationServiceStub
from services.runtime.channels import open_channel

REQUEST_SECONDS = 600.0


class GrpcLoad:
    """A client that has so many connections, and gives each request the next of them."""

    def __init__(self, address: str, *, num_connections: int, num_new_tokens: int) -> None:
        self._channels: list[grpc.aio.Channel] = [
            open_channel(address, is_apart=True) for _ in range(num_connections)
        ]
        self._stubs = [GenerationServiceStub(channel) for channel in self._channels]
        self._num_new_tokens = num_new_tokens

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def generate(self, prompts: Sequence[Sequence[int]]) -> Timed:
        """Continue every prompt, greedily and past the end of sequence, all at once.

        Raises AioRpcError when one fails.
        """
        began = time.perf_counter()
        first_seconds = await asyncio.gather(
            *(self._one(number, prompt, began) for number, prompt in enumerate(prompts))
        )
        num_tokens = self._num_new_tokens * len(prompts)
        return Timed(time.perf_counter() - began, num_tokens, first_seconds)

    async def _one(self, number: int, prompt: Sequence[int], began: float) -> float:
        request = generation_pb2.GenerateRequest(
            token_ids=generation_pb2.TokenIds(ids=prompt),
            sampling=common_pb2.SamplingParameters(temperature=0.0),
            stop=common_pb2.StopConditions(max_new_tokens=self._num_new_tokens, ignore_eos=True),
        )
        stub = self._stubs[number % len(self._stubs)]
        first_seconds, num_tokens = None, 0
        async for response in stub.Generate(request, timeout=REQUEST_SECONDS):
            if first_seconds is None:
                first_seconds = time.perf_counter() - began
            num_tokens += len(response.delta.token_ids)
        if first_seconds is None or num_tokens != self._num_new_tokens:
            raise BenchFailed(f"{num_tokens} tokens came over gRPC, fewer than asked for")
        return first_seconds
