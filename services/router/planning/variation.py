"""How steps vary about the mean one, drawn from a load: a placement that suits the mean alone suits
hardly any step.
"""

import numpy as np

from services.router.load.load import ExpertLoad

# Of an expert's pairs in steps in which it has any, relative to their mean: texts differ by more
# than chance.
DEVIATION = 0.3
# Drawn of a small model; of a large one fewer, as many as this many loads of an expert allow, or
# else none.
MAX_STEPS, MIN_STEPS, MAX_DRAWN = 16, 8, 8192
SEED = 20251122  # always the same, so that equal loads give equal plans


def drawn_steps(load: ExpertLoad) -> list[ExpertLoad]:
    """Steps such as the load may be the mean of, every expert by itself; the load alone where the
    model is large.
    """
    num_steps = min(MAX_STEPS, MAX_DRAWN // max(1, load.tokens.size))
    if num_steps < MIN_STEPS:
        return [load]
    rng = np.random.default_rng(SEED)
    shape = (num_steps, *load.tokens.shape)
    chance = np.clip(load.active, 1e-9, 1.0)
    is_active = rng.random(shape) < chance
    factors = rng.gamma(DEVIATION**-2, DEVIATION**2, shape)
    tokens = np.where(is_active, load.tokens / chance * factors, 0.0)
    return [
        ExpertLoad(step, active.astype(np.float64))
        for step, active in zip(tokens, is_active, strict=True)
    ]
