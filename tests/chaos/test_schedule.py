"""Schedules of chaos runs: drawn from a seed alone, and with a cluster that is whole after each
scene.
"""

import pytest

from bench.hosting.cluster import ROUTER
from bench.hosting.events import PHASES
from tests.chaos.schedule import OTHER_ROUTER, SERVICES, Drawing


def labels(seed: int, count: int = 100) -> list[str]:
    return [event.label for event in Drawing(seed).events(count)]


def test_a_seed_draws_the_same_events_again() -> None:
    assert labels(7) == labels(7)
    assert labels(7) != labels(8)


@pytest.mark.parametrize("seed", range(20))
def test_there_are_always_four_services_after_a_scene_and_never_fewer_than_three(seed: int) -> None:
    running = set(SERVICES)
    for label in labels(seed):
        words = label.replace(",", "").split()
        if ROUTER in label:
            continue
        if words[0] in ("SIGKILL", "SIGTERM", "drain"):
            running.remove(words[1])
        elif label.endswith("join"):
            running |= {word for word in words if word.startswith("expert-")}
        elif label.endswith("starts again"):
            running.add(words[0])
        assert 3 <= len(running) <= 6


def test_the_other_router_that_is_killed_starts_again() -> None:
    about = [label for label in labels(3, count=300) if OTHER_ROUTER in label]
    assert about
    assert sum(label.startswith("SIGKILL") for label in about) == sum(
        label.endswith("starts again") for label in about
    )


def test_everybody_in_a_move_dies_in_each_phase_of_it() -> None:
    roles = ("source of a move", "target of a move", "in a move")
    seen = labels(5, count=1)
    assert all(
        any(f"{role}, when {phase}" in label for label in seen)
        for role in roles
        for phase in PHASES
    )
