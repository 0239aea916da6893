"""A service of raw bytes with a method of each kind, and what became of its calls."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

ANSWER, COUNT, ECHO = "/test.Echo/Answer", "/test.Echo/Count", "/test.Echo/Echo"
LENGTH = 1 << 15
MANY = 2000


class Echo:
    """Serves the calls; events and counters tell what happened inside."""

    def __init__(self) -> None:
        self.metadata: dict[str, str | bytes] = {}
        self.peers: list[str] = []
        self.seconds: float | None = None
        self.began, self.cancelled = asyncio.Event(), asyncio.Event()
        self.num_written = self.num_read = self.num_echoes = 0
        self.may_end, self.has_many = asyncio.Event(), asyncio.Event()

    def register(self, server: grpc.aio.Server) -> None:
        """Serve this on `server`, by way of a generic handler."""
        methods = {
            "Answer": grpc.unary_unary_rpc_method_handler(self._answer),
            "Count": grpc.unary_stream_rpc_method_handler(self._count),
            "Echo": grpc.stream_stream_rpc_method_handler(self._echo),
        }
        handler = grpc.method_handlers_generic_handler("test.Echo", methods)
        server.add_generic_rpc_handlers((handler,))

    async def _answer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """`wait` waits until it may end; all else comes back."""
        self.metadata = dict(context.invocation_metadata())
        self.peers.append(context.peer())
        if len(self.peers) == MANY:
            self.has_many.set()
        self.seconds = context.time_remaining()
        self.began.set()
        if request == b"wait":
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if request == b"metadata":
            await context.send_initial_metadata((("early", "word"),))
            context.set_trailing_metadata((("late-bin", b"\x00\xff"), ("late", "word")))
        if request == b"abort":
            details = "not für you: 100 %\n"
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, details, (("why", "so"),))
        return request

    async def _count(
        self, request: bytes, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        """As many long messages as are asked for."""
        try:
            for _ in range(int(request)):
                yield bytes(LENGTH)
                self.num_written += 1
        finally:
            if self.num_written < int(request):
                self.cancelled.set()

    async def _echo(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        """Each comes back, once `wait` has been let go."""
        self.num_echoes += 1
        async for request in requests:
            self.num_read += 1
            self.began.set()
            if request == b"wait":
                await self.may_end.wait()
            yield request


def calls(channel: grpc.aio.Channel) -> tuple[Any, Any, Any]:
    """Answer, Count and Echo."""
    return (
        channel.unary_unary(ANSWER),
        channel.unary_stream(COUNT),
        channel.stream_stream(ECHO),
    )
