"""The waiting queue as a policy: order, bounds, and places given back."""

import asyncio
import weakref
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.admission import Admission
from services.gateway.deadline import Deadline
from services.gateway.sequence import Order, Sequence
from services.gateway.turns import FairTurns
from services.gateway.waiting import QUANTUM_TOKENS, Room, WaitingQueue
from services.wire.sampling import Sampling

NEVER = Deadline(float("inf"))
ADMISSION = Admission(max_requests=10_000, max_tokens=10**9)


def sequence(
    prompt_tokens: int,
    max_new_tokens: int = 1,
    deadline: Deadline = NEVER,
    *,
    client: str = "",
    priority: int = 2,
) -> Sequence:
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
        client=client,
        priority=priority,
    )
    return Sequence(order, ADMISSION.enter("client"), now_nanos=0)


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


def test_clients_take_turns_by_tokens_however_many_requests_one_of_them_has() -> None:
    queue = WaitingQueue(max_batch_requests=1, max_batch_tokens=10**6)
    for _ in range(50):
        queue.add(sequence(QUANTUM_TOKENS - 1, client="crowd"))
    queue.add(sequence(QUANTUM_TOKENS - 1, client="alone"))
    queue.add(sequence(3 * QUANTUM_TOKENS - 1, client="large"))
    order = [queue.take_batch(Room(1, 10**6), 0)[0].order.client for _ in range(8)]
    assert order[:3].count("alone") == 1  # in the first round
    assert "large" in order[3:7]  # once it has saved three rounds' tokens
    assert order.count("crowd") == 6


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 900)), min_size=1, max_size=60))
def test_no_client_gets_ahead_of_another_that_waits_by_more_than_a_request(
    waiting: list[tuple[str, int]],
) -> None:
    queue = WaitingQueue(max_batch_requests=1, max_batch_tokens=10**6)
    for client, tokens in waiting:
        queue.add(sequence(tokens, client=client))
    num_left = Counter(client for client, _ in waiting)
    taken: Counter[str] = Counter()
    while all(num_left[client] for client in set(dict(waiting))):  # all of them wait
        (first,) = queue.take_batch(Room(1, 10**6), 0)
        taken[first.order.client] += first.order.kv_tokens
        num_left[first.order.client] -= 1
        shares = [taken[client] for client in set(dict(waiting))]
        assert max(shares) - min(shares) <= 2 * (900 + 1 + QUANTUM_TOKENS)


def test_a_higher_priority_goes_first_among_its_clients_own_alone() -> None:
    queue = WaitingQueue(max_batch_requests=9, max_batch_tokens=10**6)
    low, first, second, high = (
        sequence(1, client="one", priority=priority) for priority in (1, 2, 2, 3)
    )
    other = sequence(QUANTUM_TOKENS, client="other", priority=1)
    for each in (other, low, first, second, high):
        queue.add(each)
    taken = queue.take_batch(Room(9, 10**6), 0)
    assert [each for each in taken if each is not other] == [high, first, second, low]
    assert taken.index(other) == 4  # its turn, after the others' round


async def test_clients_take_turns_at_what_a_few_can_use() -> None:
    turns, order = FairTurns(1), []

    async def use(client: str) -> None:
        end = await turns.begin(client)
        order.append(client)
        end()

    end = await turns.begin("crowd")
    waiting = [asyncio.create_task(use(client)) for client in ("crowd",) * 4 + ("alone",)]
    left = asyncio.create_task(use("gone"))
    await asyncio.sleep(0)
    left.cancel()
    end()
    await asyncio.gather(*waiting)
    assert order == ["crowd", "alone", "crowd", "crowd", "crowd"]
    assert await turns.begin("later") is not None  # the place is free again


class Name(str):
    """Of a client; a plain str cannot be looked after."""

    __slots__ = ("__weakref__",)


async def test_nothing_is_kept_of_a_client_that_has_left_its_turn() -> None:
    turns = FairTurns(1)
    end = await turns.begin("busy")
    name = Name("left")
    kept, leaving = weakref.ref(name), asyncio.ensure_future(turns.begin(name))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait((leaving,))
    del name, leaving
    assert kept() is None
    end()
    await turns.begin("next")
