"""What requests wait for is loaded first."""

from services.router.planning.order import in_order_of_need
from services.wire.expert_key import ExpertKey

MISSING = [ExpertKey(layer, expert) for layer in range(4) for expert in (1, 5)]


def test_while_nobody_waits_experts_are_loaded_as_they_are_given() -> None:
    assert in_order_of_need(MISSING[::-1], set()) == MISSING[::-1]
    assert in_order_of_need(MISSING, {ExpertKey(0, 7)}) == MISSING, "that one is not missing"


def test_what_is_waited_for_comes_first_and_then_the_layers_that_come_next() -> None:
    assert in_order_of_need(MISSING, {ExpertKey(2, 5)}) == [
        *[(2, 5), (2, 1)],
        *[(3, 1), (3, 5)],
        *[(0, 1), (0, 5)],
        *[(1, 1), (1, 5)],
    ]


def test_what_several_wait_for_in_different_layers_comes_before_all_else() -> None:
    ordered = in_order_of_need(MISSING, {ExpertKey(3, 1), ExpertKey(1, 5)})
    assert ordered[:3] == [(1, 5), (3, 1), (1, 1)]
    assert sorted(ordered) == MISSING
