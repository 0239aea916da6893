"""Blocks are never in two hands, and all come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.model.block_table import BLOCK_TOKENS, BlockPool, BlockTable


def test_a_reservation_holds_its_tokens_in_neighbouring_blocks() -> None:
    table = BlockPool(8).reserve(BLOCK_TOKENS + 1)
    assert table == BlockTable(first_block=0, num_blocks=2)


def test_a_pool_without_a_long_enough_run_says_so() -> None:
    pool = BlockPool(3)
    first, second, third = (pool.reserve(1) for _ in range(3))
    assert first and second and third
    pool.release(first)
    pool.release(third)
    assert pool.free_tokens == 2 * BLOCK_TOKENS
    assert pool.reserve(2 * BLOCK_TOKENS) is None


def test_blocks_cannot_be_released_twice() -> None:
    pool = BlockPool(4)
    table = pool.reserve(20)
    assert table is not None
    pool.release(table)
    with pytest.raises(ValueError, match="not reserved"):
        pool.release(table)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=60))
def test_reservations_never_overlap_and_the_pool_is_whole_again(
    moves: list[tuple[bool, int]],
) -> None:
    pool = BlockPool(16)
    held: list[BlockTable] = []
    for give_back, size in moves:
        if give_back and held:
            pool.release(held.pop(size % len(held)))
        elif (table := pool.reserve(size)) is not None:
            held.append(table)
        taken = [block for table in held for block in table.blocks]
        assert len(taken) == len(set(taken))
        assert pool.free_tokens == (16 - len(taken)) * BLOCK_TOKENS
    for table in held:
        pool.release(table)
    assert pool.reserve(16 * BLOCK_TOKENS) == BlockTable(0, 16)
