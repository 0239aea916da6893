"""A stream over a transport that ends, or answers late, at the worst moment."""

import asyncio
import time
from collections.abc import Callable
from itertools import count

import pytest

from services.router.peers.frame_lost import FrameLost
from services.router.peers.service_behaviour import ServiceBehaviour
from services.router.peers.stream import MAX_QUEUED, ExpertStream
from services.runtime.service_calls import Receive
from services.wire.errors import Unavailable
from services.wire.frames import encode_grant, encode_reply
from services.wire.outcomes import Timings
from tests.router.behaviours import behaviour_of
from tests.router.scripted_streams import overloaded


class ScriptedTransport:
    """Delivers what a test puts into `incoming`; messages sent go to `sent`, without waiting where
    it is of the kind that takes them `at_once`.
    """

    def __init__(self, *, at_once: bool) -> None:
        self.kind = "scripted"
        self._at_once = at_once
        self.dates: Callable[[], int | None] = time.perf_counter_ns if at_once else lambda: None
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(4)
        self.sent: list[bytes] = []
        self.has_ended = False
        self.takes = asyncio.Event()  # what is sent; else the sender is held up, as by flow control
        self.takes.set()

    native = None

    def attend(self) -> None:
        raise AssertionError("no exchange uses it")

    def try_send(self, message: bytes) -> bool:
        if self.has_ended or not self._at_once or not self.takes.is_set():
            return False
        self.sent.append(message)
        return True

    async def send(self, message: bytes) -> None:
        if self.has_ended:
            raise Unavailable("it has ended")
        self.sent.append(message)
        await self.takes.wait()

    async def deliver(self, receive: Receive) -> None:
        while True:
            receive(await self.incoming.get(), self.dates())

    def close(self) -> None:
        self.has_ended = True


@pytest.fixture(params=[False, True], ids=["from a task", "at once"])
def transport(request: pytest.FixtureRequest) -> ScriptedTransport:
    """Of either kind."""
    return ScriptedTransport(at_once=request.param)


async def up(
    transport: ScriptedTransport,
    floor_seconds: float = 5.0,
    behaviour: ServiceBehaviour | None = None,
    max_queued: int = MAX_QUEUED,
) -> tuple[ExpertStream, "asyncio.Task[None]"]:
    is_up = asyncio.Event()
    behaviour = behaviour or behaviour_of("a:1", floor_seconds)
    stream = ExpertStream(
        "a:1",
        lambda: transport,
        behaviour,
        is_up.set,
        max_queued=max_queued,
        new_frame_id=count().__next__,
    )
    running = asyncio.create_task(stream.run())
    await transport.incoming.put(encode_grant(100))
    await is_up.wait()
    return stream, running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- what other tasks do has no event
            await asyncio.sleep(0)


async def stopped(running: "asyncio.Task[None]") -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_message_to_a_transport_that_has_just_ended_breaks_the_stream_alone(
    transport: ScriptedTransport,
) -> None:
    stream, running = await up(transport)
    transport.has_ended = True
    answered = stream.send(lambda *_: b"frame", 1, 1)
    with pytest.raises(ExceptionGroup) as caught:
        await running
    assert caught.group_contains(Unavailable, match="it has ended")
    for lost in (answered, stream.send(lambda *_: b"frame", 1, 1)):
        with pytest.raises(FrameLost) as caught_frame:
            await lost
        assert caught_frame.value.reason == "broken"


async def test_a_frame_is_not_given_up_for_the_time_in_which_the_router_was_busy_itself(
    transport: ScriptedTransport,
) -> None:
    stream, running = await up(transport, floor_seconds=0.02)
    answered = stream.send(lambda *_: b"frame", 1, 1)
    time.sleep(0.1)  # noqa: ASYNC251 -- another lane computes
    await transport.incoming.put(encode_reply(frame_id=0))
    assert (await answered).reply.frame_id == 0
    await stopped(running)


async def test_a_cancellation_is_sent_only_where_frames_are_waiting(
    transport: ScriptedTransport,
) -> None:
    stream, running = await up(transport)
    stream.cancel([7])
    answered = stream.send(lambda *_: b"frame", 1, 1)
    stream.cancel([7])
    await transport.incoming.put(encode_reply(frame_id=0))
    await answered
    assert transport.sent[0] == b"frame"
    assert len(transport.sent) == 2
    await stopped(running)


async def test_a_late_reply_proves_that_the_service_lives_and_is_passed_over(
    transport: ScriptedTransport,
) -> None:
    behaviour = behaviour_of("a:1", 0.02)
    stream, running = await up(transport, behaviour=behaviour)
    with pytest.raises(FrameLost):
        await stream.send(lambda *_: b"frame", 1, 1)
    assert behaviour.suspicion.is_suspect
    for _ in range(2):  # late, and then twice
        await transport.incoming.put(encode_reply(frame_id=0))
    await until(lambda: not behaviour.suspicion.is_suspect)
    answered = stream.send(lambda *_: b"frame", 1, 1)
    await transport.incoming.put(encode_reply(frame_id=1))
    assert (await answered).reply.frame_id == 1
    await stopped(running)


async def test_a_frame_that_is_given_up_before_it_could_be_written_is_never_written(
    transport: ScriptedTransport,
) -> None:
    behaviour = behaviour_of("a:1", 0.02)
    stream, running = await up(transport, behaviour=behaviour)
    transport.takes.clear()
    first, second = stream.send(lambda *_: b"first", 1, 1), stream.send(lambda *_: b"second", 1, 1)
    for answered in (first, second):
        with pytest.raises(FrameLost):
            await answered
    transport.takes.set()
    await transport.incoming.put(encode_reply(frame_id=0))
    await until(lambda: not behaviour.suspicion.is_suspect)
    third = stream.send(lambda *_: b"third", 1, 1)
    await transport.incoming.put(encode_reply(frame_id=2))
    await third
    assert transport.sent == [b"first", b"third"]
    await stopped(running)


async def test_a_frame_whose_step_is_gone_before_it_could_be_written_raises_no_suspicion(
    transport: ScriptedTransport,
) -> None:
    behaviour = behaviour_of("a:1", 0.02)
    stream, running = await up(transport, behaviour=behaviour)
    waiting = stream.send(lambda *_: b"waiting", 101, 1)  # for credit
    waiting.cancel()
    answered = stream.send(lambda *_: b"frame", 1, 1)
    # Longer inside the service than on the way, so that what is expected is all for what is in
    # flight.
    await transport.incoming.put(encode_reply(frame_id=1, timings=Timings(0, 0, 10**12, 0)))
    await answered
    now = behaviour.pace.heard
    assert behaviour.pace.waiting_nanos(behaviour.pace.estimate(now)) == 0
    stream.cancel([7])
    assert transport.sent == [b"frame"], "a stream without frames in flight has nothing to cancel"
    await stopped(running)


async def test_no_more_frames_wait_for_a_service_that_takes_none_than_is_allowed(
    transport: ScriptedTransport,
) -> None:
    stream, running = await up(transport, max_queued=2)
    waiting = [stream.send(lambda *_: b"frame", 101, 1) for _ in range(2)]
    stream.cancel([7])
    with pytest.raises(FrameLost, match="takes nothing: 2 frames wait"):
        await stream.send(lambda *_: b"frame", 1, 1)
    assert not any(answered.done() for answered in waiting)
    await transport.incoming.put(encode_grant(1000))
    await until(lambda: transport.sent == [b"frame"] * 2)
    await stopped(running)
    for answered in waiting:
        with pytest.raises(FrameLost):
            await answered


async def test_a_refusal_teaches_nothing_of_how_fast_a_service_computes(
    transport: ScriptedTransport,
) -> None:
    behaviour = behaviour_of("a:1", 5.0)
    stream, running = await up(transport, behaviour=behaviour)
    refused = stream.send(lambda *_: b"frame", 1, 1)
    await transport.incoming.put(encode_reply(frame_id=0, failures=[overloaded(0)]))
    await refused
    assert not behaviour.pace.is_known
    computed = stream.send(lambda *_: b"frame", 1, 1)
    await transport.incoming.put(encode_reply(frame_id=1))
    await computed
    assert behaviour.pace.is_known
    await stopped(running)


async def test_a_frame_is_sent_before_the_call_returns_where_the_transport_takes_it() -> None:
    transport = ScriptedTransport(at_once=True)
    stream, running = await up(transport)
    answers = [stream.send(lambda *_: b"first", 60, 1), stream.send(lambda *_: b"second", 60, 1)]
    assert transport.sent == [b"first"], "the second waits for credit"
    await transport.incoming.put(encode_reply(frame_id=0, granted_pairs=160))
    await answers[0]
    assert transport.sent == [b"first", b"second"]
    await stopped(running)


async def test_what_is_sent_while_the_transport_is_held_up_follows_in_order(
    transport: ScriptedTransport,
) -> None:
    stream, running = await up(transport)
    transport.takes.clear()
    names = [bytes([number]) for number in range(5)]
    answers = [stream.send(lambda *_, name=name: name, 1, 1) for name in names]
    await until(lambda: transport.sent == names[:1])
    transport.takes.set()
    await until(lambda: transport.sent == names)
    await stopped(running)
    for answered in answers:
        with pytest.raises(FrameLost):
            await answered


async def test_a_reply_has_the_date_that_the_transport_knows_but_none_before_its_frame() -> None:
    transport = ScriptedTransport(at_once=True)
    stream, running = await up(transport)
    for frame_id, late in ((0, 1000), (1, -(10**12))):
        answered = stream.send(lambda *_: b"frame", 1, 1)
        sent = time.perf_counter_ns()
        transport.dates = lambda: sent + late  # noqa: B023 -- it is asked before the next round
        await transport.incoming.put(encode_reply(frame_id=frame_id))
        times = (await answered).times
        assert times.arrived == max(sent + late, times.sent)
    await stopped(running)
