"""The scheduler decides without tensors, clock or loop, and so is tested."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.model.block_table import BLOCK_TOKENS, BlockPool
from services.router.engine.scheduler import ScheduledTokens, Scheduler
from services.router.engine.sequence import EndReason, Order, Sequence
from services.router.times.receipt import SequenceReceipt
from services.wire.errors import InvalidRequest, Overloaded
from services.wire.sampling import Sampling


def sequence(number: int, prompt: int, new: int) -> Sequence:
    return Sequence(number, Order(tuple(range(prompt)), Sampling(), new), SequenceReceipt())


def scheduler(blocks: int = 16, **changed: int) -> Scheduler:
    limits = {
        "max_sequences": 4,
        "max_context": 128,
        "max_batch_tokens": 32,
        "max_lanes": 1,
    } | changed
    return Scheduler(BlockPool(blocks), **limits)


def compute(work: list[ScheduledTokens]) -> None:
    for item in work:
        draws = item.draws
        item.sequence.num_computed += item.num_tokens
        if draws:
            item.sequence.take(0)


def test_a_lane_is_alone_while_no_other_has_sequences() -> None:
    plan = scheduler(max_lanes=2)
    for number in (1, 2):
        plan.submit(sequence(number, prompt=4, new=2))
        plan.next_batch(0)
        assert plan.is_alone(0) == (number == 1)
        assert not plan.is_alone(1)


def test_a_long_prompt_is_computed_in_chunks_of_the_budget() -> None:
    plan = scheduler()
    plan.submit(sequence(1, prompt=70, new=2))
    chunks = []
    for _ in range(3):
        batch = plan.next_batch(0)
        chunks.append([item.num_tokens for item in batch])
        compute(batch)
    assert chunks == [[32], [32], [6]]


def test_decodes_go_before_prefills_and_share_the_budget_with_them() -> None:
    plan = scheduler()
    first = sequence(1, prompt=4, new=8)
    plan.submit(first)
    compute(plan.next_batch(0))
    plan.submit(sequence(2, prompt=100, new=2))
    assert [(item.sequence.number, item.num_tokens) for item in plan.next_batch(0)] == [
        (1, 1),
        (2, 31),
    ]


def test_a_sequence_waits_until_its_worst_case_is_reserved() -> None:
    plan = scheduler(blocks=4)
    big, small = sequence(1, prompt=40, new=20), sequence(2, prompt=10, new=1)
    plan.submit(big)
    plan.submit(small)
    assert [item.sequence for item in plan.next_batch(0)] == [big]
    big.end(EndReason.CANCELLED)
    plan.remove(big)
    assert [item.sequence for item in plan.next_batch(0)] == [small]


def test_a_sequence_that_exceeds_the_context_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="exceed the context of 128"):
        scheduler().submit(sequence(1, prompt=100, new=29))


def test_more_sequences_than_the_limit_are_refused() -> None:
    plan = scheduler()
    for number in range(4):
        plan.submit(sequence(number, prompt=1, new=1))
    with pytest.raises(Overloaded, match="4 sequences"):
        plan.submit(sequence(9, prompt=1, new=1))


def test_an_ended_sequence_gets_no_work_and_frees_its_blocks_when_removed() -> None:
    plan = scheduler()
    gone = sequence(1, prompt=20, new=5)
    plan.submit(gone)
    plan.next_batch(0)
    free = plan.room().kv_tokens
    gone.end(EndReason.CANCELLED)
    assert plan.next_batch(0) == []
    assert plan.ended_sequences(0) == [gone]
    plan.remove(gone)
    assert plan.room().kv_tokens == free + 2 * BLOCK_TOKENS


def test_sequences_spread_over_the_lanes() -> None:
    plan = scheduler(max_lanes=2)
    for number in range(4):
        plan.submit(sequence(number, prompt=1, new=4))
    assert [[item.sequence.number for item in plan.next_batch(lane)] for lane in (0, 1)] == [
        [0, 2],
        [1, 3],
    ]


def test_sequences_move_to_lanes_that_come_into_use_and_back() -> None:
    plan = scheduler(max_lanes=2)
    plan.lanes_in_use = 1
    for number in range(4):
        plan.submit(sequence(number, prompt=1, new=4))
    assert len(plan.next_batch(0)) == 4
    plan.lanes_in_use = 2
    assert plan.spread(0)
    assert [len(plan.next_batch(lane)) for lane in (0, 1)] == [2, 2]
    assert not plan.spread(0)
    plan.lanes_in_use = 1
    assert plan.spread(1)
    assert [len(plan.next_batch(lane)) for lane in (0, 1)] == [4, 0]


def test_lanes_are_kept_level_as_sequences_end() -> None:
    plan = scheduler(max_lanes=2)
    for number in range(4):
        plan.submit(sequence(number, prompt=1, new=4))
    plan.next_batch(0)
    for ended in (item.sequence for item in plan.next_batch(1)):
        ended.end(EndReason.CANCELLED)
        plan.remove(ended)
    assert plan.spread(0)
    assert [len(plan.next_batch(lane)) for lane in (0, 1)] == [1, 1]


def test_waiting_sequences_count_against_the_room() -> None:
    plan = scheduler(blocks=4)
    plan.submit(sequence(1, prompt=60, new=4))
    assert plan.room().kv_tokens == 0
    assert plan.room().sequences == 3


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=12),
    st.integers(1, 3),
)
def test_every_sequence_ends_and_every_block_comes_back(
    sizes: list[tuple[int, int]], lanes: int
) -> None:
    plan = scheduler(blocks=8, max_sequences=16, max_lanes=lanes)
    waiting = [sequence(number, prompt, new) for number, (prompt, new) in enumerate(sizes)]
    for item in waiting:
        plan.submit(item)
    for _ in range(2000):
        for lane in range(lanes):
            batch = plan.next_batch(lane)
            assert sum(item.num_tokens for item in batch) <= 32
            compute(batch)
            for item in plan.ended_sequences(lane):
                plan.remove(item)
        if plan.num_sequences == 0:
            break
    assert all(len(item.generated) == item.order.max_new_tokens for item in waiting)
    assert plan.room().kv_tokens == 8 * BLOCK_TOKENS


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "end", "use"]), st.integers(0, 2)), max_size=60)
)
def test_a_sequence_is_never_in_two_steps_at_once(happenings: list[tuple[str, int]]) -> None:
    """Lanes begin and end their steps in any order while the number in use changes."""
    plan = scheduler(blocks=16, max_sequences=8, max_lanes=3)
    for number in range(7):
        plan.submit(sequence(number, prompt=2, new=20))
    in_steps: dict[int, list[ScheduledTokens]] = {}
    for what, value in happenings:
        if what == "use":
            plan.lanes_in_use = value + 1
        elif what == "end":
            compute(in_steps.pop(value, []))
        elif value not in in_steps:
            for ended in plan.ended_sequences(value):
                plan.remove(ended)
            plan.spread(value)
            in_steps[value] = plan.next_batch(value)
        stepping = [item.sequence.number for batch in in_steps.values() for item in batch]
        assert len(stepping) == len(set(stepping))
    assert plan.num_sequences == 7 or not any(item.ending for item in plan.sequences())
