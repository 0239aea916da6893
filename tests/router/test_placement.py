"""Who can compute an expert, as the dispatcher asks it."""

import numpy as np

from services.router.dispatch.assignment import SEVERAL
from services.router.dispatch.frame_pairs import NOBODY
from services.router.dispatch.placement import Placement
from tests.router.scripted_streams import ScriptedExperts

LAYER = 5
READY = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]], dtype=bool)


def placement(*addresses: str, ready: np.ndarray = READY) -> Placement:
    return Placement([ScriptedExperts(address, []) for address in addresses], {LAYER: ready})


def test_an_owner_is_named_only_where_there_is_one() -> None:
    assert placement("a", "b", "c").owners[LAYER].tolist() == [SEVERAL, 1, NOBODY, SEVERAL]


def test_candidates_are_the_services_that_an_expert_is_ready_on() -> None:
    made = placement("a", "b", "c")
    found = [sorted(made.candidates(LAYER, expert)) for expert in range(4)]
    assert found == [[0, 1, 2], [1], [], [0, 2]]
    assert made.candidates(LAYER + 1, 0) == ()
    assert sorted(made.choices(LAYER)) == [0, 3]


def test_without_services_nobody_computes_anything() -> None:
    made = placement(ready=np.zeros((0, 4), dtype=bool))
    assert made.owners[LAYER].tolist() == [NOBODY] * 4
    assert made.choices(LAYER) == {}


def test_preference_differs_by_expert_and_does_not_depend_on_the_order_of_services() -> None:
    addresses = [f"10.0.0.{number}:50051" for number in range(4)]
    ready = np.ones((4, 64), dtype=bool)
    one, other = placement(*addresses, ready=ready), placement(*reversed(addresses), ready=ready)
    firsts = [0] * 4
    for expert in range(64):
        assert [addresses[service] for service in one.candidates(LAYER, expert)] == [
            addresses[3 - service] for service in other.candidates(LAYER, expert)
        ]
        firsts[one.candidates(LAYER, expert)[0]] += 1
    assert min(firsts) >= 8  # of the 16 that would be each one's even share
