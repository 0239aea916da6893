"""A crowd of calls begins and ends a few at a time, so that whoever else the loop serves gets turns
between them.
"""

import asyncio
from collections import Counter

import grpc
import pytest

from services.runtime.native_server import AVAILABLE, Limits, NativeServer
from services.runtime.native_server.turn import Turn
from services.runtime.server import MAX_MESSAGE_BYTES
from tests.runtime.native_server.echo import ANSWER
from tests.runtime.native_server.stranger import BEGUN, SECONDS, request_of, stranger
from tests.wire.http2.frames import END_STREAM, data, headers, rst_stream

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the connections were not compiled")

NUM_CALLS, IN_A_TURN = 40, 4
# Neither time nor bytes end a turn here.
LIMITS = Limits(MAX_MESSAGE_BYTES, turn_seconds=60.0, max_turn_calls=IN_A_TURN)


class Crowded:
    """Waits in every call; counts, by the loop's turns, those that begin and those that end."""

    def __init__(self) -> None:
        self._turn = 0
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.changed = asyncio.Event()
        self._next()

    def _next(self) -> None:
        self._turn += 1
        self._ticking = asyncio.get_running_loop().call_soon(self._next)

    def stop(self) -> None:
        self._ticking.cancel()

    async def wait(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self._count(self.begun)
        try:
            await asyncio.Event().wait()
        finally:
            self._count(self.ended)
        return request

    async def until_all(self, counted: Counter[int]) -> None:
        async with asyncio.timeout(SECONDS):
            while counted.total() < NUM_CALLS:
                self.changed.clear()
                await self.changed.wait()

    def _count(self, counted: Counter[int]) -> None:
        counted[self._turn] += 1
        self.changed.set()


@pytest.mark.parametrize("leaving", ["resets its calls", "closes its connection"])
async def test_a_crowds_calls_begin_and_end_a_few_in_each_turn(leaving: str) -> None:
    server, crowded = NativeServer(LIMITS), Crowded()
    method = grpc.unary_unary_rpc_method_handler(crowded.wait)
    service, _, name = ANSWER[1:].partition("/")
    server.add_registered_method_handlers(service, {name: method})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    streams = range(1, 2 * NUM_CALLS, 2)
    calls = [
        headers(stream, request_of()) + data(stream, b"x", flags=END_STREAM) for stream in streams
    ]
    client = await stranger(port, BEGUN, *calls)
    await crowded.until_all(crowded.begun)
    if leaving == "resets its calls":
        client.writer.write(b"".join(map(rst_stream, streams)))
    else:
        client.writer.close()
    await crowded.until_all(crowded.ended)
    client.writer.close()
    await client.writer.wait_closed()
    await server.stop(0)
    crowded.stop()
    assert max(crowded.begun.values()) <= IN_A_TURN
    assert max(crowded.ended.values()) <= IN_A_TURN


async def test_work_that_is_spread_goes_on_where_the_turn_before_it_ended() -> None:
    turn, done, left = Turn(60.0, 1, 2), asyncio.Event(), list(range(7))

    def work() -> bool:
        left.pop()
        if not left:
            done.set()
        return bool(left)

    turn.spread(work)
    assert len(left) == 5
    async with asyncio.timeout(SECONDS):
        await done.wait()
