"""The queue without a service around it: order, bounds, and one answer for every frame."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from moesaic.v1 import expert_pb2
from services.expert.admission import Contract, Slots, admit
from services.expert.admitted_frame import AdmittedFrame, FrameAnswer
from services.expert.batcher import Batcher
from services.expert.compute import Computed, FrameWork
from services.wire.received import ReceivedFrame

NO_WEIGHTS = np.empty(0, np.float32)
CONTRACT = Contract(torch.float32, 2, (0, 1, 2), 4, 2, 1 << 20)
HOUR_NANOS = 3600 * 10**9


class Desk:
    """Hands frames in and collects the answers and the batches."""

    def __init__(self, max_waiting_pairs: int = 100) -> None:
        self.batches: list[list[int]] = []  # pairs of each frame
        self.answers: dict[int, FrameAnswer] = {}
        self.slots = Slots(CONTRACT)
        for layer in CONTRACT.moe_layers:
            for expert in range(4):
                self.slots.put(layer, expert, 4 * layer + expert)
        self.batcher = Batcher(self.compute, max_waiting_pairs=max_waiting_pairs)

    async def compute(self, batch: Sequence[FrameWork]) -> Computed:
        self.batches.append([len(work.slots) for work in batch])
        await asyncio.sleep(0)
        return Computed([torch.zeros(len(work.slots), 2) for work in batch], 1)

    def submit(
        self, number: int, layer: int, num_pairs: int, *, remaining_nanos: int = HOUR_NANOS
    ) -> AdmittedFrame:
        experts = np.zeros(num_pairs, np.uint32)
        frame = ReceivedFrame(
            number,
            layer,
            torch.float32,
            1,
            memoryview(bytes(8)),
            experts,
            experts,
            NO_WEIGHTS,
            remaining_nanos,
            "",
            (),
        )
        admitted = admit(frame, 100, CONTRACT, self.slots, time.monotonic_ns(), self.deliver)
        self.batcher.submit(admitted)
        return admitted

    def deliver(self, admitted: AdmittedFrame, answer: FrameAnswer) -> None:
        assert admitted.frame.frame_id not in self.answers, "a frame is answered once"
        self.answers[admitted.frame.frame_id] = answer

    async def run(self) -> None:
        """Run until all that was submitted is done with."""
        done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.batcher.run())
            self.batcher.when_settled(done.set)
            await done.wait()
            running.cancel()


async def test_all_frames_of_a_layer_go_together_and_the_layer_that_waited_longest_first() -> None:
    desk = Desk()
    for number, (layer, num_pairs) in enumerate([(2, 1), (0, 2), (2, 3), (1, 4), (0, 5)]):
        desk.submit(number, layer, num_pairs)
    assert desk.batcher.waiting_pairs == 15
    await desk.run()
    assert desk.batches == [[1, 3], [2, 5], [4]]
    assert desk.batcher.waiting_pairs == 0
    answered = {
        number: answer.rows for number, answer in desk.answers.items() if answer.rows is not None
    }
    assert {number: len(rows) for number, rows in answered.items()} == {
        0: 1, 1: 2, 2: 3, 3: 4, 4: 5,
    }  # fmt: skip


async def test_frames_that_an_idle_batcher_gets_in_one_turn_go_together() -> None:
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.batcher.run())
        for number in (0, 2):
            await asyncio.sleep(0)  # now it waits
            settled = asyncio.Event()
            desk.submit(number, 1, 1)
            desk.submit(number + 1, 1, 2)
            desk.batcher.when_settled(settled.set)
            await settled.wait()
        running.cancel()
    assert desk.batches == [[1, 2], [1, 2]]


async def test_others_get_a_turn_between_batches_that_await_nothing() -> None:
    desk, order = Desk(), []

    async def compute(batch: Sequence[FrameWork]) -> Computed:
        order.append("batch")
        return Computed([torch.zeros(len(work.slots), 2) for work in batch], 1)

    async def health() -> None:
        for _ in range(3):
            order.append("health")
            await asyncio.sleep(0)

    desk.batcher = Batcher(compute, max_waiting_pairs=100)
    for layer in CONTRACT.moe_layers:
        desk.submit(layer, layer, 1)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.batcher.run())
        await tasks.create_task(health())
        running.cancel()
    assert order == ["batch", "health"] * 3


async def test_the_bound_counts_pairs_that_wait_and_nothing_else() -> None:
    desk = Desk(max_waiting_pairs=10)
    desk.submit(0, 0, 6)
    dropped = desk.submit(1, 1, 4)
    desk.submit(2, 0, 1)
    assert desk.answers[2].failures[0].reason == expert_pb2.PAIR_FAILURE_REASON_OVERLOADED
    assert desk.batcher.drop(dropped)
    assert not desk.batcher.drop(dropped)
    desk.submit(3, 0, 4)
    await desk.run()
    assert desk.batches == [[6, 4]]
    desk.submit(4, 0, 1_000)
    await desk.run()
    assert desk.batches[1:] == [[1_000]]
    assert 1 not in desk.answers


async def test_an_expired_frame_does_not_hold_up_its_layer() -> None:
    desk = Desk()
    desk.submit(0, 0, 2, remaining_nanos=0)
    desk.submit(1, 0, 3)
    desk.submit(2, 1, 4, remaining_nanos=0)
    await desk.run()
    assert desk.batches == [[3]]
    for number, num_pairs in ((0, 2), (2, 4)):
        (failure,) = desk.answers[number].failures
        assert failure.reason == expert_pb2.PAIR_FAILURE_REASON_EXPIRED
        assert failure.pairs == tuple(range(num_pairs))


async def test_pairs_that_were_not_hosted_stay_so_when_the_rest_fails_for_another_reason() -> None:
    desk = Desk()
    desk.slots.take_away(0, 1)
    experts = np.array([1, 0, 1, 2], np.uint32)
    rows = np.zeros(4, np.uint32)
    frame = ReceivedFrame(
        0, 0, torch.float32, 1, memoryview(bytes(8)), rows, experts, NO_WEIGHTS, 0, "", ()
    )
    desk.batcher.submit(admit(frame, 100, CONTRACT, desk.slots, time.monotonic_ns(), desk.deliver))
    await desk.run()
    assert {failure.reason: failure.pairs for failure in desk.answers[0].failures} == {
        expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED: (0, 2),
        expert_pb2.PAIR_FAILURE_REASON_EXPIRED: (1, 3),
    }


async def test_who_waits_for_the_queue_to_settle_does_not_wait_for_later_frames() -> None:
    desk, settled = Desk(), []
    desk.batcher.when_settled(lambda: settled.append("empty"))
    assert settled == ["empty"]
    admitted = desk.submit(0, 0, 1)
    desk.batcher.when_settled(lambda: settled.append("first"))
    desk.submit(1, 1, 1)
    desk.batcher.when_settled(lambda: settled.append("both"))
    assert settled == ["empty"]
    desk.batcher.drop(admitted)
    assert settled == ["empty", "first"]
    await desk.run()
    assert settled == ["empty", "first", "both"]


async def test_who_waits_for_the_queue_to_settle_waits_for_the_batch_that_is_being_computed() -> (
    None
):
    desk, began, opened, settled = Desk(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def held(batch: Sequence[FrameWork]) -> Computed:
        began.set()
        await opened.wait()
        return await desk.compute(batch)

    desk.batcher = Batcher(held, max_waiting_pairs=100)
    desk.submit(0, 0, 1)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.batcher.run())
        await began.wait()
        desk.batcher.when_settled(settled.set)
        assert not settled.is_set()
        opened.set()
        await settled.wait()
        assert 0 in desk.answers
        running.cancel()


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), ValueError("bad")])
async def test_a_failure_is_that_of_the_frame_that_fails_alone(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    desk, compute = Desk(), Desk.compute

    async def failing(batch: Sequence[FrameWork]) -> Computed:
        if any(len(work.slots) == 3 for work in batch):
            raise failure
        return await compute(desk, batch)

    desk.batcher = Batcher(failing, max_waiting_pairs=100)
    for number, (layer, num_pairs) in enumerate([(0, 1), (0, 3), (0, 2), (1, 3), (2, 1)]):
        desk.submit(number, layer, num_pairs)
    await desk.run()
    errors = {
        number: answer.error for number, answer in desk.answers.items() if answer.error is not None
    }
    assert {number: error.message for number, error in errors.items()} == {
        1: "computing layer 0 failed; the service's log says why",
        3: "computing layer 1 failed; the service's log says why",
    }
    assert desk.batches == [[1], [2], [1]]
    assert caplog.records[0].exc_info is not None


async def test_an_answer_that_cannot_be_delivered_ends_nothing_else() -> None:
    desk = Desk()
    deliver = desk.deliver

    def failing(admitted: AdmittedFrame, answer: FrameAnswer) -> None:
        if admitted.frame.frame_id in (1, 3):
            raise ValueError("no room")
        deliver(admitted, answer)

    desk.deliver = failing  # type: ignore[method-assign]
    for number, remaining_nanos in enumerate((HOUR_NANOS, HOUR_NANOS, HOUR_NANOS, 0, 0)):
        desk.submit(number, 0, 1, remaining_nanos=remaining_nanos)
    await desk.run()
    assert desk.answers.keys() == {0, 2, 4}
    assert desk.answers[0].rows is not None


async def test_a_call_that_fails_when_its_frames_are_done_with_ends_nothing_else() -> None:
    desk, called = Desk(), asyncio.Event()

    def failing() -> None:
        called.set()
        raise KeyError("gone")

    desk.submit(0, 0, 1)
    desk.batcher.when_settled(failing)
    await desk.run()
    assert called.is_set()
    assert desk.answers[0].rows is not None
