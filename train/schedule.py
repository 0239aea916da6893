"""The learning rate: linear warm-up, then constant, then a linear fall to nothing."""

from train.recipe import Recipe


def learning_rate(step: int, recipe: Recipe) -> float:
    """The rate of step `step`, counted from 0.

    Until `recipe.decay_start` it does not depend on `recipe.steps`, so that the length of a run
    can still be chosen while it is under way.
    """
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    fallen = min(1.0, (recipe.steps - step) / (recipe.steps - recipe.decay_start + 1))
    return recipe.peak_rate * warm * fallen
