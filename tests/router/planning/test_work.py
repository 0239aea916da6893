"""A layer's work is shared out over its replicas so that the busiest service has as little as
possible.
"""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.planning.work import PRECISION, LayerWork, Rates


def work_of(tokens: list[float], hosts: list[list[int]], nanos: list[float]) -> LayerWork:
    """Pairs alone cost anything, `nanos` [services] each."""
    made = LayerWork(
        Rates([0.0] * len(nanos), [0.0] * len(nanos), nanos), tokens, [1.0] * len(tokens)
    )
    for expert, there in enumerate(hosts):
        for service in there:
            made.add(expert, service)
    made.level()
    return made


def least_makespan(tokens: list[float], hosts: list[list[int]], num_services: int) -> float:
    """For equal services: no subset can be done sooner than with what only it can compute, evenly
    shared.
    """
    bounds = [0.0]
    for chosen in product([False, True], repeat=num_services):
        if any(chosen):
            theirs = sum(
                it
                for it, there in zip(tokens, hosts, strict=True)
                if all(chosen[at] for at in there)
            )
            bounds.append(theirs / sum(chosen))
    return max(bounds)


@st.composite
def layers(draw: st.DrawFn) -> tuple[list[float], list[list[int]], int]:
    num_services = draw(st.integers(1, 4))
    hosts = st.lists(
        st.integers(0, num_services - 1), min_size=1, max_size=num_services, unique=True
    )
    tokens = draw(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=8))
    return tokens, [draw(hosts) for _ in tokens], num_services


@settings(max_examples=150)
@given(layers())
def test_the_busiest_service_is_done_about_as_soon_as_can_be(
    layer: tuple[list[float], list[list[int]], int],
) -> None:
    tokens, hosts, num_services = layer
    made = work_of(tokens, hosts, [1.0] * num_services)
    best = least_makespan(tokens, hosts, num_services)
    # Leveling stops where changes are small, each of which could go on along all services.
    slack = 20 * PRECISION * made.even_nanos + 1e-6
    assert best - 1e-6 <= made.makespan <= best + slack
    assert sum(made.nanos) == pytest.approx(sum(tokens), abs=1e-6)
    assert all(sum(share.values()) == pytest.approx(1.0) for share in made.shares)


def test_services_of_different_speed_are_done_together() -> None:
    made = work_of([120.0], [[0, 1]], [1.0, 3.0])
    assert made.shares[0] == pytest.approx({0: 0.75, 1: 0.25})
    assert made.makespan == pytest.approx(90.0)


def test_fixed_time_counts_only_where_something_is_hosted() -> None:
    rates = Rates([10.0, 1000.0], [1.0, 1.0], [0.0, 0.0])
    made = LayerWork(rates, [5.0], [0.5])
    made.add(0, 0)
    made.level()
    assert made.makespan == pytest.approx(10.5)


def test_what_was_changed_since_a_snapshot_can_be_taken_back() -> None:
    made = work_of([60.0, 30.0], [[0], [1]], [1.0, 1.0])
    before = made.snapshot()
    made.add(0, 1)
    made.level((1,))
    assert made.makespan == pytest.approx(45.0)
    made.restore(before)
    assert made.makespan == pytest.approx(60.0)
    assert made.experts_of == [{0}, {1}]


def test_a_removed_replicas_work_goes_to_the_others() -> None:
    made = work_of([60.0, 30.0], [[0, 1], [1]], [1.0, 1.0])
    made.remove(0, 1)
    made.level((0, 1))
    assert made.nanos == pytest.approx([60.0, 30.0])
    assert np.isclose(made.even_nanos, 45.0)
