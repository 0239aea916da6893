"""Drawn steps vary about the load they are drawn from, the same way every time."""

import numpy as np
import pytest

from services.router.load.load import ExpertLoad
from services.router.planning.variation import DEVIATION, drawn_steps


def test_drawn_steps_have_the_load_as_their_mean() -> None:
    tokens = np.full((4, 64), 40.0)
    steps = drawn_steps(ExpertLoad(tokens, np.full((4, 64), 0.8)))
    assert len(steps) > 1
    assert np.mean([step.tokens for step in steps]) == pytest.approx(40.0, rel=0.05)
    active = np.array([step.active for step in steps])
    assert set(np.unique(active)) == {0.0, 1.0}
    assert active.mean() == pytest.approx(0.8, rel=0.05)
    with_any = np.array([step.tokens for step in steps])[active > 0]
    assert with_any.std() / with_any.mean() == pytest.approx(DEVIATION, rel=0.1)


def test_an_expert_without_pairs_has_none_in_any_step() -> None:
    tokens = np.array([[0.0, 5.0]])
    steps = drawn_steps(ExpertLoad(tokens, (tokens > 0).astype(np.float64)))
    assert all(step.tokens[0, 0] == step.active[0, 0] == 0.0 for step in steps)


def test_equal_loads_give_equal_steps() -> None:
    load = ExpertLoad(np.full((2, 8), 3.0), np.full((2, 8), 0.5))
    for one, other in zip(drawn_steps(load), drawn_steps(load), strict=True):
        assert (one.tokens == other.tokens).all()


def test_a_large_model_is_planned_by_its_mean_step_alone() -> None:
    load = ExpertLoad(np.ones((61, 256)), np.ones((61, 256)))
    assert drawn_steps(load) == [load]
