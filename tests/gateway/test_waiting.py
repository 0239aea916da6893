"""The waiting queue as a policy: order, bounds, and places given back."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.admission import Admission
from services.gateway.deadline import Deadline
from services.gateway.sequence import Order, Sequence
from services.gateway.waiting import Room, WaitingQueue
from services.wire.sampling import Sampling

NEVER = Deadline(float("inf"))
ADMISSION = Admission(max_requests=10_000, max_tokens=10**9)


def sequence(prompt_tokens: int, max_new_tokens: int = 1, deadline: Deadline = NEVER) -> Sequence:
    order = Order(
        prompt_token_ids=[5] * prompt_tokens,
        sampling=Sampling(1, 0, 1, 0, 0),
        max_new_tokens=max_new_tokens,
        stop_token_ids=(),
        return_routed_experts=False,
        trace_detail=0,
        traceparent="",
        tracestate="",
        deadline=deadline,
    )
    return Sequence(order, ADMISSION.enter(), now_nanos=0)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=30),
    rooms=st.lists(st.builds(Room, st.integers(0, 8), st.integers(0, 80)), max_size=30),
)
def test_batches_keep_order_and_every_bound(
    sizes: list[tuple[int, int]], rooms: list[Room]
) -> None:
    queue = WaitingQueue(max_batch_requests=5, max_batch_tokens=15)
    sequences = [sequence(*size) for size in sizes]
    for each in sequences:
        queue.add(each)
    taken = []
    for room in [*rooms, *[Room(5, 200)] * len(sizes)]:  # in the end there is room for all
        batch = queue.take_batch(room, 0)
        assert len(batch) <= min(5, room.sequences)
        assert sum(each.order.kv_tokens for each in batch) <= room.kv_tokens
        assert len(batch) == 1 or sum(len(each.order.prompt_token_ids) for each in batch) <= 15
        taken += batch
    assert taken == sequences


@given(st.data())
def test_what_is_put_back_has_its_old_place(data: st.DataObject) -> None:
    queue = WaitingQueue(max_batch_requests=100, max_batch_tokens=100)
    sequences = [sequence(1) for _ in range(8)]
    for each in sequences:
        queue.add(each)
    taken = queue.take_batch(Room(data.draw(st.integers(1, 8)), 100), 0)
    for each in data.draw(st.permutations(taken)):
        queue.put_back(each)
    assert queue.drain() == sequences


def test_whoever_left_or_is_out_of_time_is_not_in_a_batch() -> None:
    queue = WaitingQueue(max_batch_requests=9, max_batch_tokens=9)
    late, gone, here = sequence(1, deadline=Deadline(5)), sequence(1), sequence(1)
    for each in (late, gone, here):
        queue.add(each)
    queue.discard(gone)
    queue.discard(gone)
    assert queue.take_batch(Room(9, 99), now_seconds=5) == [here]
    assert len(queue) == 0
