"""What a router says of a sequence is handed over whole, in order, and in bounded portions."""

import asyncio
from functools import partial

import pytest

from moesaic.v1 import common_pb2, router_pb2
from services.gateway.admission import Admission
from services.gateway.deadline import Deadline
from services.gateway.sequence import MAX_PORTION, Finish, Order, Portion, Sequence
from services.wire.errors import ServingError, Unavailable
from services.wire.sampling import Sampling

END = Finish(router_pb2.SequenceFinish(), received_nanos=0)


def sequence(max_new_tokens: int = 10_000) -> Sequence:
    order = Order(
        prompt_token_ids=[5],
        sampling=Sampling(),
        max_new_tokens=max_new_tokens,
        stop_token_ids=(),
        return_routed_experts=True,
        trace_detail=0,
        traceparent="",
        tracestate="",
        deadline=Deadline(float("inf")),
        client="client",
    )
    return Sequence(order, Admission(max_requests=9, max_tokens=99).enter("client"), now_nanos=0)


async def test_what_gathered_comes_in_bounded_portions_and_the_end_with_the_last() -> None:
    subject = sequence()
    num_tokens = 2 * MAX_PORTION + 3
    experts = [
        common_pb2.RoutedExperts(layers=[common_pb2.RoutedLayer(layer=number)])
        for number in range(num_tokens)
    ]
    for number in range(num_tokens):
        subject.deliver(number, experts[number])
    subject.finish(END)
    portions = [await subject.next_portion() for _ in range(3)]
    assert [len(portion.token_ids) for portion in portions] == [MAX_PORTION, MAX_PORTION, 3]
    assert [each for portion in portions for each in portion.token_ids] == [*range(num_tokens)]
    assert [each for portion in portions for each in portion.routed_experts] == experts
    assert [portion.finish for portion in portions] == [None, None, END]


async def test_an_end_without_tokens_is_a_portion() -> None:
    subject = sequence()
    subject.finish(END)
    assert await subject.next_portion() == Portion([], [], END)


async def test_a_failure_is_raised_after_what_came_before_it_and_nothing_comes_after_it() -> None:
    subject = sequence()
    subject.deliver(1, None)
    subject.fail(Unavailable("lost"))
    subject.deliver(2, None)
    subject.finish(END)
    assert await subject.next_portion() == Portion([1], [], None)
    for _ in range(2):
        with pytest.raises(Unavailable, match="lost"):
            await subject.next_portion()


async def test_more_tokens_than_asked_for_end_it_after_those_that_were() -> None:
    subject = sequence(max_new_tokens=2)
    for number in range(3):
        subject.deliver(number, None)
    assert (await subject.next_portion()).token_ids == [0, 1]
    with pytest.raises(ServingError, match="more tokens"):
        await subject.next_portion()


async def test_a_reader_that_waits_is_woken_by_a_token_an_end_and_a_failure() -> None:
    subject = sequence()
    async with asyncio.TaskGroup() as tasks:
        wakes = (partial(subject.deliver, 7, None), partial(subject.finish, END))
        for wake in wakes:
            reading = tasks.create_task(subject.next_portion())
            await asyncio.sleep(0)  # it waits now
            wake()
            portion = await reading
            assert portion.token_ids or portion.finish
        failing = tasks.create_task(_failure(subject))
        await asyncio.sleep(0)
        subject.fail(Unavailable("lost"))
        assert str(await failing) == "lost"


async def test_a_token_that_meets_a_cancelled_reader_is_kept_for_the_next() -> None:
    subject = sequence()
    reading = asyncio.ensure_future(subject.next_portion())
    await asyncio.sleep(0)
    reading.cancel()
    subject.deliver(7, None)
    await asyncio.wait([reading])
    assert (await subject.next_portion()).token_ids == [7]


async def _failure(subject: Sequence) -> Exception:
    try:
        await subject.next_portion()
    except Unavailable as error:
        return error
    raise AssertionError("it did not fail")
