"""An expert's pairs go to the replica that is expected to be done with them first."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.router.assignment import SEVERAL, assign
from services.router.pace import Pace
from services.router.shares import DROPPED, NOBODY

NOW = 10**9


def pace(wire: int = 1000, per_pair: int = 100, in_flight: int = 0) -> Pace:
    made = Pace()
    made.begin(1)
    made.end(1, wire + per_pair, per_pair)
    made.begin(in_flight)
    made.heard = NOW
    return made


def assigned(experts: list[int], owners: list[int], choices: dict[int, list[int]], paces: list[Pace]) -> list[int]:
    return assign(np.array(experts, dtype=np.int64), np.array(owners), choices, paces, NOW).tolist()


def test_the_faster_replica_is_taken() -> None:
    assert assigned([0], [SEVERAL], {0: [0, 1]}, [pace(wire=2000), pace(wire=1000)]) == [1]
    assert assigned([0] * 9, [SEVERAL], {0: [0, 1]}, [pace(per_pair=500), pace(per_pair=300)]) == [1]


def test_what_is_on_the_way_to_a_replica_counts() -> None:
    assert assigned([0], [SEVERAL], {0: [0, 1]}, [pace(in_flight=20), pace(wire=2000)]) == [1]


def test_what_only_one_service_can_compute_counts_first() -> None:
    experts = [0] + [1] * 20
    assert assigned(experts, [SEVERAL, 0], {0: [0, 1]}, [pace(), pace(wire=2000)]) == [1, 0]


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
        assert assigned([0], [SEVERAL, NOBODY], {0: [0, 1]}, paces) == [0 if fast_first else 1, NOBODY]


def test_where_nothing_is_known_pairs_are_spread() -> None:
    choices = {expert: [0, 1] for expert in range(4)}
    assert sorted(assigned([0, 1, 2, 3], [SEVERAL] * 4, choices, [Pace(), Pace()])) == [0, 0, 1, 1]


def test_experts_without_pairs_are_nobody_s_and_owners_are_left_alone() -> None:
    owners = np.array([SEVERAL, 1, NOBODY, SEVERAL])
    before = owners.copy()
    found = assign(np.array([DROPPED, 1, 3]), owners, {0: [0, 1], 3: [0, 1]}, [pace(), pace()], NOW)
    assert found.tolist() == [NOBODY, 1, NOBODY, 0]
    assert (owners == before).all()


@given(st.data(), st.integers(1, 5), st.integers(1, 12))
def test_each_expert_with_pairs_goes_to_one_of_its_choices(
    data: st.DataObject, num_services: int, num_experts: int
) -> None:
    services = st.integers(0, num_services - 1)
    choices, owners = {}, []
    for expert in range(num_experts):
        found = data.draw(st.lists(services, unique=True, max_size=num_services))
        owners.append(NOBODY if not found else found[0] if len(found) == 1 else SEVERAL)
        if len(found) > 1:
            choices[expert] = found
    experts = data.draw(st.lists(st.integers(DROPPED, num_experts - 1), max_size=40))
    times = st.integers(0, 10**6)
    paces = [
        data.draw(st.builds(Pace) | st.builds(pace, times, times, st.integers(0, 100))) for _ in range(num_services)
    ]
    for expert, service in enumerate(assigned(experts, owners, choices, paces)):
        if owners[expert] != SEVERAL:
            assert service == owners[expert]
        elif expert in experts:
            assert service in choices[expert]
        else:
            assert service == NOBODY
