"""A stream over a call that ends, or answers late, at the worst moment."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from services.router.expert_stream import ExpertStream
from services.router.frame_deadline import FrameDeadline
from services.wire.errors import ServingError, Unavailable
from services.wire.frames import encode_grant, encode_reply


class ScriptedCall:
    """A call whose reads a test feeds; writes go to `written`, or fail as grpc.aio's do once the call has ended."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(4)
        self.written: list[bytes] = []
        self.has_ended = False

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, message: bytes) -> None:
        if self.has_ended:
            raise asyncio.InvalidStateError("RPC already finished.")
        self.written.append(message)

    def cancel(self) -> None:
        self.has_ended = True


class ScriptedChannel:
    """A channel with one call."""

    def __init__(self, call: ScriptedCall) -> None:
        self._call = call

    def stream_stream(self, method: str) -> Callable[[], Any]:
        return lambda: self._call


async def up(call: ScriptedCall, floor_seconds: float = 5.0) -> tuple[ExpertStream, "asyncio.Task[None]"]:
    is_up = asyncio.Event()
    channel: Any = ScriptedChannel(call)
    stream = ExpertStream("a:1", channel, FrameDeadline(floor_seconds), is_up.set)
    running = asyncio.create_task(stream.run())
    await call.incoming.put(encode_grant(100))
    await is_up.wait()
    return stream, running


async def test_a_write_to_a_call_that_has_just_ended_breaks_the_stream_and_nothing_else() -> None:
    call = ScriptedCall()
    stream, running = await up(call)
    call.has_ended = True
    answered = stream.send(lambda *_: b"frame", 1)
    with pytest.raises(ExceptionGroup) as caught:
        await running
    assert caught.group_contains(Unavailable, match="ended the call")
    with pytest.raises(Unavailable):
        await answered
    with pytest.raises(ServingError):
        await stream.send(lambda *_: b"frame", 1)


async def test_a_frame_is_not_given_up_for_the_time_in_which_the_router_was_busy_itself() -> None:
    call = ScriptedCall()
    stream, running = await up(call, floor_seconds=0.02)
    answered = stream.send(lambda *_: b"frame", 1)
    time.sleep(0.1)  # noqa: ASYNC251 -- another lane computes
    await call.incoming.put(encode_reply(frame_id=0))
    assert (await answered).reply.frame_id == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_cancellation_is_sent_only_where_frames_are_waiting() -> None:
    call = ScriptedCall()
    stream, running = await up(call)
    stream.cancel([7])
    answered = stream.send(lambda *_: b"frame", 1)
    stream.cancel([7])
    await call.incoming.put(encode_reply(frame_id=0))
    await answered
    assert call.written[0] == b"frame"
    assert len(call.written) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
