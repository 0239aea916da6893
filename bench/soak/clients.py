"""Clients that do not wait for their answers: some cancel, some vanish without a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc

from bench.hosting.streams import requests_of
from bench.hosting.wire import Wire
from moesaic.v1 import generation_pb2, generation_pb2_grpc
from services.runtime.channels import open_channel

NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 16, 400
NUM_READ = 3
PAUSE_SECONDS = 0.5
CALL_SECONDS = 60.0


class RudeClients:
    """Counts those that came; each begins a long answer, reads a little of it and is gone."""

    def __init__(self, address: str, wire: Wire) -> None:
        self.num_cancelled = self.num_vanished = 0
        self._address = address
        self._wire = wire
        (self._request,) = requests_of(1, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS)

    async def run(self) -> None:
        """One after the other, until cancelled."""
        while True:
            await self._cancel()
            await self._vanish()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _cancel(self) -> None:
        async with open_channel(self._address) as channel:
            call = self._call(channel)
            await _read_some(call)
            call.cancel()
        self.num_cancelled += 1

    async def _vanish(self) -> None:
        """The connection breaks, and no stream on it is ended first."""
        async with open_channel(self._wire.address) as channel:
            await _read_some(self._call(channel))
            await self._wire.cut()
        await self._wire.restore()
        self.num_vanished += 1

    def _call(
        self, channel: grpc.aio.Channel
    ) -> "grpc.aio.UnaryStreamCall[generation_pb2.GenerateRequest, object]":
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        call: grpc.aio.UnaryStreamCall = stub.Generate(self._request, timeout=CALL_SECONDS)
        return call


@asynccontextmanager
async def rude_clients(address: str) -> AsyncIterator[RudeClients]:
    """Have them come to a gateway while the block runs."""
    wire = await Wire.start(address)
    clients = RudeClients(address, wire)
    try:
        async with asyncio.TaskGroup() as tasks:
            coming = tasks.create_task(clients.run())
            try:
                yield clients
            finally:
                coming.cancel()
    finally:
        await wire.close()


async def _read_some(call: grpc.aio.UnaryStreamCall) -> None:
    with suppress(grpc.aio.AioRpcError):  # a router dies meanwhile, and is not waited for
        for _ in range(NUM_READ):
            await call.read()
