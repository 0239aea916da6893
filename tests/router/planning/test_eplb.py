"""The baseline replicates the most loaded experts and packs what comes of that evenly."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.router.planning.eplb import packed


def places(found: list[tuple[int, int]]) -> dict[int, list[int]]:
    return {place: sorted(expert for at, expert in found if at == place) for place, _ in found}


def test_the_most_loaded_expert_is_replicated_by_what_each_replica_would_have() -> None:
    replicas = Counter(expert for _, expert in packed([90.0, 40.0, 10.0, 10.0], [2, 2, 2]))
    assert replicas == {0: 3, 1: 1, 2: 1, 3: 1}


def test_the_heaviest_goes_first_each_to_the_lightest_place_with_room() -> None:
    assert places(packed([8.0, 7.0, 2.0, 1.0], [2, 2])) == {0: [0, 3], 1: [1, 2]}


@given(
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=12),
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
)
def test_no_place_has_more_than_its_slots_and_all_experts_are_placed_where_they_fit(
    weights: list[float], slots: list[int]
) -> None:
    found = packed(weights, slots)
    used = Counter(place for place, _ in found)
    assert all(used[place] <= room for place, room in enumerate(slots))
    replicas = Counter(expert for _, expert in found)
    assert len(found) == min(sum(slots), len(weights) * len(slots))
    assert len(replicas) == min(sum(slots), len(weights))
