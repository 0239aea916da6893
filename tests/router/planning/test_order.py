"""What requests wait for is loaded first, and in short loads."""

from functools import partial

import pytest

from services.router.planning.moves import BATCH_BYTES, MAX_BATCH
from services.router.planning.order import AWAITED_BYTES, LastLoad, in_order_of_need, next_batch
from services.wire.expert_key import ExpertKey

MISSING = [ExpertKey(layer, expert) for layer in range(4) for expert in (1, 5)]


def test_what_is_waited_for_comes_first_and_then_the_layers_that_come_next() -> None:
    assert in_order_of_need(MISSING, {ExpertKey(2, 5)}, 2) == [
        *[(2, 5), (2, 1)],
        *[(3, 1), (3, 5)],
        *[(0, 1), (0, 5)],
        *[(1, 1), (1, 5)],
    ]


def test_what_several_wait_for_in_different_layers_comes_before_all_else() -> None:
    ordered = in_order_of_need(MISSING, {ExpertKey(3, 1), ExpertKey(1, 5)}, 1)
    assert ordered[:3] == [(1, 5), (3, 1), (1, 1)]
    assert sorted(ordered) == MISSING


@pytest.mark.parametrize(
    ("awaited", "expert_bytes", "expected"),
    [
        (set(), BATCH_BYTES // 3, MISSING[:3]),
        ({ExpertKey(0, 7)}, BATCH_BYTES // 3, MISSING[:3]),  # that one is not missing
        ({MISSING[7]}, AWAITED_BYTES // 2, [MISSING[7], MISSING[6]]),
        ({*MISSING[5:]}, AWAITED_BYTES, MISSING[5:]),
        (set(), 2 * BATCH_BYTES, MISSING[:1]),
        (set(), 1, MISSING),
    ],
)
def test_while_requests_wait_a_load_has_little_besides(
    awaited: set[ExpertKey], expert_bytes: int, expected: list[ExpertKey]
) -> None:
    assert next_batch(MISSING, awaited, expert_bytes) == expected


def test_where_requests_compute_on_loads_stay_short_and_begin_with_the_layer_that_comes_next() -> (
    None
):
    passed = partial(next_batch, MISSING, set(), AWAITED_BYTES // 3)
    assert passed(passed_layer=1) == [(2, 1), (2, 5), (3, 1)]
    assert passed(passed_layer=3) == [(0, 1), (0, 5), (1, 1)]
    assert len(passed()) == 6


def test_no_load_has_more_experts_than_are_planned_with_at_once() -> None:
    many = [ExpertKey(0, expert) for expert in range(2 * MAX_BATCH)]
    assert len(next_batch(many, set(), 1)) == MAX_BATCH
    assert len(next_batch(many, set(many), 1)) == MAX_BATCH


@pytest.mark.parametrize(
    ("num_experts", "seconds", "expected"),
    [(0, 0.0, 4), (4, 0.01, 8), (16, 0.1, 16), (16, 0.2, 8), (16, 10.0, 4), (60, 0.0, MAX_BATCH)],
)
def test_loads_are_larger_where_they_are_over_soon_even_so(
    num_experts: int, seconds: float, expected: int
) -> None:
    many = [ExpertKey(layer, expert) for layer in range(4) for expert in range(64)]
    last = LastLoad(num_experts, seconds)
    batch = next_batch(many, {many[0]}, AWAITED_BYTES // 4, None, last)
    assert batch == many[:expected]
    assert len(next_batch(many, set(), 1 << 40, None, last)) <= max(1, 2 * num_experts)
