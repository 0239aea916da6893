"""When sequences that wait are given to a router."""

import asyncio
from collections.abc import Sequence as Sequenced

from services.gateway.admission import Admission
from services.gateway.deadline import Deadline
from services.gateway.micro_batcher import MicroBatcher
from services.gateway.sequence import Order, Sequence
from services.gateway.waiting import Room, WaitingQueue
from services.wire.sampling import Sampling

ADMISSION = Admission(max_requests=10_000, max_tokens=10**9)


class Link:
    """A router that takes one batch at a time, as routers do."""

    def __init__(self) -> None:
        self.batches: list[list[Sequence]] = []
        self.is_taking = False

    @property
    def room(self) -> Room:
        return Room() if self.is_taking else Room(100, 1000)

    def submit(self, batch: Sequenced[Sequence]) -> None:
        self.is_taking = True
        self.batches.append(list(batch))

    def cancel(self, sequence: Sequence) -> None:
        """It is told nothing."""


def sequence() -> Sequence:
    order = Order(
        prompt_token_ids=[5],
        sampling=Sampling(),
        max_new_tokens=1,
        stop_token_ids=(),
        return_routed_experts=False,
        trace_detail=0,
        traceparent="",
        tracestate="",
        deadline=Deadline(float("inf")),
    )
    return Sequence(order, ADMISSION.enter(), now_nanos=0)


async def test_what_comes_in_one_turn_of_the_loop_is_one_batch() -> None:
    batcher, link = MicroBatcher(WaitingQueue(max_batch_requests=10, max_batch_tokens=100)), Link()
    batcher.attach(link)
    together = [sequence() for _ in range(3)]
    for each in together:
        batcher.submit(each)
    await asyncio.sleep(0)
    assert link.batches == [together]


async def test_what_comes_later_is_the_next_batch() -> None:
    batcher, link = MicroBatcher(WaitingQueue(max_batch_requests=10, max_batch_tokens=100)), Link()
    batcher.attach(link)
    first, second, third = sequence(), sequence(), sequence()
    batcher.submit(first)
    await asyncio.sleep(0)
    batcher.submit(second)
    batcher.submit(third)
    await asyncio.sleep(0)
    assert link.batches == [[first]]
    link.is_taking = False
    batcher.pump()
    assert link.batches == [[first], [second, third]]
