"""Which pairs of the model's last layer are computed: nothing reads what becomes of the others."""

import numpy as np

from services.router.arrays import Indices
from services.router.dispatch.frame_pairs import DROPPED
from services.router.engine.step import Step


def experts_of_drawing(step: Step, experts: Indices, top_k: int) -> Indices:
    """The flat [tokens x k] experts, with DROPPED for rows that no token is drawn from."""
    wanted = np.full_like(experts, DROPPED).reshape(-1, top_k)
    wanted[step.last_rows] = experts.reshape(-1, top_k)[step.last_rows]
    return wanted.reshape(-1)
