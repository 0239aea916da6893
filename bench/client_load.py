"""Requests through the gateway, all at once, timed where a client would time them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from bench.generated import Generated
from moesaic.v1 import generation_pb2, generation_pb2_grpc
from services.runtime.channels import open_channel

REQUEST_SECONDS = 600.0


@dataclass
class _Stream:
    token_seconds: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)


class ClientLoad:
    """A client with one connection to a gateway."""

    def __init__(self, address: str, *, num_new_tokens: int) -> None:
        self._channel: grpc.aio.Channel = open_channel(address)
        self._stub = generation_pb2_grpc.GenerationServiceStub(self._channel)
        self._num_new_tokens = num_new_tokens

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def generate(self, prompts: Sequence[Sequence[int]]) -> Generated:
        """Continue every prompt, greedily and past the end of sequence; raises AioRpcError when one fails."""
        began = time.perf_counter()
        streams = await asyncio.gather(*(self._one(prompt, began) for prompt in prompts))
        seconds = time.perf_counter() - began
        return Generated(
            seconds, [stream.token_seconds for stream in streams], [stream.token_ids for stream in streams]
        )

    async def _one(self, prompt: Sequence[int], began: float) -> _Stream:
        request = generation_pb2.GenerateRequest(token_ids=generation_pb2.TokenIds(ids=prompt))
        request.sampling.temperature = 0.0
        request.stop.max_new_tokens = self._num_new_tokens
        request.stop.ignore_eos = True
        stream = _Stream()
        async for response in self._stub.Generate(request, timeout=REQUEST_SECONDS):
            now = time.perf_counter() - began
            stream.token_ids += response.delta.token_ids
            stream.token_seconds += [now] * len(response.delta.token_ids)
        return stream
