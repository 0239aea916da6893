"""The learning rate, whose stable part must not know how long the run will be."""

from itertools import pairwise

import pytest

from train.recipe import Recipe
from train.schedule import learning_rate

SHORT, LONG = Recipe(steps=400), Recipe(steps=1000)


def test_the_rate_rises_to_its_peak() -> None:
    assert learning_rate(0, SHORT) == pytest.approx(SHORT.peak_rate / SHORT.warmup_steps)
    assert learning_rate(SHORT.warmup_steps - 1, SHORT) == SHORT.peak_rate


def test_before_the_decay_the_length_of_the_run_is_not_felt() -> None:
    assert SHORT.decay_start == 240
    for step in range(SHORT.decay_start):
        assert learning_rate(step, SHORT) == learning_rate(step, LONG)


def test_the_rate_falls_evenly_to_almost_nothing() -> None:
    rates = [learning_rate(step, SHORT) for step in range(SHORT.decay_start, SHORT.steps)]
    drops = [before - after for before, after in pairwise(rates)]
    assert max(drops) == pytest.approx(min(drops))
    assert 0 < rates[-1] < 0.02 * SHORT.peak_rate
