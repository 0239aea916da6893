"""An expert's pairs go to the replica that is expected to be done with them first, or to several
that share them.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.dispatch.assignment import SEVERAL, Assigned, assign
from services.router.dispatch.frame_pairs import DROPPED, NOBODY
from services.router.peers.pace import Pace
from tests.router.paces import fitted_pace

NOW = 10**9


def pace(wire: int = 1000, per_pair: int = 100, in_flight: int = 0) -> Pace:
    made = Pace()
    made.begin(1, 1)
    made.end(1, 1, wire + per_pair, 0, per_pair)
    made.begin(in_flight, 1)
    made.heard = NOW
    return made


def fitted(expert: int, pair: int, wire: int = 1000, frame: int = 100) -> Pace:
    """A pace that knows what an expert takes apart from its pairs."""
    made = fitted_pace(expert, pair, wire=wire, frame=frame)
    made.heard = NOW
    return made


def assignment(
    experts: list[int], owners: list[int], choices: dict[int, list[int]], paces: list[Pace]
) -> Assigned:
    return assign(np.array(experts, dtype=np.int64), np.array(owners), choices, paces, NOW)


def assigned(
    experts: list[int], owners: list[int], choices: dict[int, list[int]], paces: list[Pace]
) -> list[int]:
    """The service of each expert, none of which is split."""
    found = assignment(experts, owners, choices, paces)
    assert found.experts is None and found.parts.tolist() == experts
    return found.owners.tolist()


def test_the_faster_replica_is_taken() -> None:
    assert assigned([0], [SEVERAL], {0: [0, 1]}, [pace(wire=2000), pace(wire=1000)]) == [1]
    assert assigned([0] * 9, [SEVERAL], {0: [0, 1]}, [pace(per_pair=500), pace(per_pair=300)]) == [
        1
    ]
    assert assigned([0], [SEVERAL], {0: [0, 1]}, [fitted(200, 10), fitted(100, 10)]) == [1]
    assert assigned([0], [SEVERAL], {0: [0, 1]}, [fitted(100, 10), fitted(100, 10, frame=0)]) == [1]


def test_services_that_seem_to_differ_a_little_share_pairs_alike() -> None:
    shared = assignment([0] * 40, [SEVERAL], {0: [0, 1]}, [fitted(100, 1000), fitted(110, 1100)])
    assert np.bincount(shared.parts).tolist() == [20, 20]


def test_what_is_on_the_way_to_a_replica_counts() -> None:
    assert assigned([0], [SEVERAL], {0: [0, 1]}, [pace(in_flight=20), pace(wire=2000)]) == [1]
    busy = fitted(100, 10)
    busy.begin(1, 1)
    assert assigned([0], [SEVERAL], {0: [0, 1]}, [busy, fitted(100, 10, wire=1100)]) == [1]


def test_what_only_one_service_can_compute_counts_first() -> None:
    experts = [0] + [1] * 20
    assert assigned(experts, [SEVERAL, 0], {0: [0, 1]}, [pace(), pace(wire=2000)]) == [1, 0]
    assert assigned(
        [0, 1, 2], [SEVERAL, 0, 0], {0: [0, 1]}, [fitted(200, 1), fitted(200, 1, wire=1300)]
    ) == [1, 0, 0]


def test_the_expert_with_most_pairs_is_placed_first() -> None:
    # In the order of experts the small ones would fill both services before the large one comes.
    experts = [0] * 2 + [1] * 2 + [2] * 4
    choices = {expert: [0, 1] for expert in range(3)}
    assert assigned(experts, [SEVERAL] * 3, choices, [pace(), pace()]) == [1, 1, 0]


def test_of_equals_the_first_choice_is_taken() -> None:
    for order in ([0, 1, 2], [2, 0, 1]):
        assert assigned([0], [SEVERAL], {0: order}, [pace(), pace(), pace()]) == order[:1]


def test_a_service_that_was_never_heard_counts_as_the_mean_of_the_others() -> None:
    for fast_first in (True, False):
        fast, slow = pace(wire=1000), pace(wire=3000)
        others = [fast, Pace()] if fast_first else [slow, Pace()]
        paces = [*others, pace(wire=3000) if fast_first else pace(wire=1000)]
        assert assigned([0], [SEVERAL, NOBODY], {0: [0, 1]}, paces) == [
            0 if fast_first else 1,
            NOBODY,
        ]


def test_where_nothing_is_known_pairs_are_spread() -> None:
    choices = {expert: [0, 1] for expert in range(4)}
    assert sorted(assigned([0, 1, 2, 3], [SEVERAL] * 4, choices, [Pace(), Pace()])) == [0, 0, 1, 1]


def test_experts_without_pairs_are_nobody_s_and_owners_are_left_alone() -> None:
    owners = np.array([SEVERAL, 1, NOBODY, SEVERAL])
    before = owners.copy()
    found = assign(np.array([DROPPED, 1, 3]), owners, {0: [0, 1], 3: [0, 1]}, [pace(), pace()], NOW)
    assert found.owners.tolist() == [NOBODY, 1, NOBODY, 0]
    assert (owners == before).all()


def test_a_service_whose_pairs_seem_to_cost_nothing_is_not_given_all_of_them() -> None:
    choices = {expert: [0, 1] for expert in range(8)}
    paces = [
        fitted(0, 0, frame=1000),
        fitted(100, 150, frame=0),
    ]  # alike for a frame of four experts and pairs
    assert sorted(assigned(list(range(8)), [SEVERAL] * 8, choices, paces)) == [0] * 4 + [1] * 4


def test_a_hot_expert_is_split_after_what_its_services_must_compute_besides() -> None:
    experts = [1, DROPPED, *[1, 0] * 20, *[1] * 39]
    found = assignment(experts, [0, SEVERAL], {1: [0, 1]}, [fitted(10, 10), fitted(10, 10)])
    # 20 of expert 0's, which stands for 21 of another, and 60 of expert 1's.
    assert found.experts is not None and found.experts.tolist() == [0, 1, 1]
    assert sorted(found.owners[1:].tolist()) == [0, 1]
    counts = np.bincount(found.owners[found.parts[found.parts != DROPPED]])
    assert counts.tolist() == pytest.approx([40, 40], abs=1)
    assert found.parts[1] == DROPPED


def test_nothing_is_split_where_an_expert_takes_more_than_a_part_would_save_or_nobody_knows() -> (
    None
):
    experts, choices = [0] * 60, {0: [0, 1]}
    assert assigned(experts, [SEVERAL], choices, [pace(), pace()]) == [0]
    assert assigned(experts, [SEVERAL], choices, [fitted(10, 10), pace(per_pair=20)]) == [0]
    both = {0: [0, 1], 1: [1, 0]}
    assert assigned([0, 1, 1, 1], [SEVERAL] * 2, both, [fitted(100, 10), fitted(100, 10)]) == [0, 1]


def test_nothing_is_split_while_another_service_holds_the_layer_up_anyway() -> None:
    experts = [0] * 60 + [1]
    slow = fitted(10, 10, wire=50_000)
    assert assigned(experts, [SEVERAL, 2], {0: [0, 1]}, [fitted(10, 10), fitted(10, 10), slow]) == [
        0,
        2,
    ]
    without = assignment(
        experts, [SEVERAL, NOBODY], {0: [0, 1]}, [fitted(10, 10), fitted(10, 10), slow]
    )
    assert without.experts is not None, "a slow service that computes nothing here holds nothing up"


@given(st.data(), st.integers(1, 5), st.integers(1, 12), st.booleans())
def test_each_pair_is_assigned_once_to_a_service_that_hosts_its_expert(
    data: st.DataObject, num_services: int, num_experts: int, may_split: bool
) -> None:
    services = st.integers(0, num_services - 1)
    choices, owners = {}, []
    for expert in range(num_experts):
        found = data.draw(st.lists(services, unique=True, max_size=num_services))
        owners.append(NOBODY if not found else found[0] if len(found) == 1 else SEVERAL)
        if len(found) > 1:
            choices[expert] = found
    experts = data.draw(st.lists(st.integers(DROPPED, num_experts - 1), max_size=80))
    times = st.integers(0, 10**4)
    known = (
        st.builds(fitted, times, times, times)
        if may_split
        else st.builds(pace, times, times, st.integers(0, 100))
    )
    paces = [data.draw(st.builds(Pace) | known) for _ in range(num_services)]
    made = assignment(experts, owners, choices, paces)
    expert_of = np.arange(num_experts) if made.experts is None else made.experts
    assert expert_of[:num_experts].tolist() == list(range(num_experts))
    given_out = set()
    for part, expert in zip(made.parts.tolist(), experts, strict=True):
        if expert == DROPPED:
            assert part == DROPPED
            continue
        assert expert_of[part] == expert
        service = int(made.owners[part])
        assert (
            service in choices[expert] if owners[expert] == SEVERAL else service == owners[expert]
        )
        given_out.add((part, expert, service))
    assert len({(expert, service) for _, expert, service in given_out}) == len(given_out), (
        "each has one part of it"
    )
