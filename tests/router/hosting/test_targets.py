"""Experts are spread evenly, as memory allows, and what is hosted stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.placement import Holder, spread_evenly
from services.wire.errors import BadState

EXPERTS = [(layer, expert) for layer in range(3) for expert in range(8)]
BYTES = dict.fromkeys(range(3), 10)


def test_equal_services_get_equal_shares_of_every_layer() -> None:
    plan = spread_evenly(EXPERTS, BYTES, [Holder("a", 1000), Holder("b", 1000)])
    for layer in range(3):
        assert [sum(key[0] == layer for key in plan[address]) for address in ("a", "b")] == [4, 4]


def test_a_small_service_gets_what_fits() -> None:
    plan = spread_evenly(EXPERTS, BYTES, [Holder("a", 1000), Holder("small", 25)])
    assert {address: len(keys) for address, keys in plan.items()} == {"a": 22, "small": 2}


def test_hosted_experts_are_not_given_again() -> None:
    hosted = {(0, expert) for expert in range(8)}
    plan = spread_evenly(EXPERTS, BYTES, [Holder("a", 1000, hosted), Holder("b", 1000)])
    given_keys = [key for keys in plan.values() for key in keys]
    assert sorted(given_keys) == sorted(set(EXPERTS) - hosted)
    assert len(plan["a"]) == len(plan["b"]) == 8


def test_too_little_memory_is_refused_with_the_figures() -> None:
    with pytest.raises(BadState, match=r"24 experts to place take 240 bytes, 2 services have 150 bytes"):
        spread_evenly(EXPERTS, BYTES, [Holder("a", 100), Holder("b", 50)])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5))
def test_no_service_gets_more_than_its_memory(sizes: list[int]) -> None:
    holders = [Holder(str(index), size * 10) for index, size in enumerate(sizes)]
    if sum(sizes) < len(EXPERTS):
        with pytest.raises(BadState):
            spread_evenly(EXPERTS, BYTES, holders)
        return
    plan = spread_evenly(EXPERTS, BYTES, holders)
    assert sorted(key for keys in plan.values() for key in keys) == EXPERTS
    assert all(len(plan.get(holder.address, [])) * 10 <= holder.free_bytes for holder in holders)
