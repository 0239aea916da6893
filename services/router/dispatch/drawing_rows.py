"""Which pairs of the model's last layer are computed: nothing reads what becomes of the others."""

import numpy as np

from services.router.arrays import Indices
from services.router.dispatch.frame_pairs import DROPPED
from services.router.engine.step import Step


def experts_of_drawing(step: Step, experts: Indices, top_k: int) -> Indices:
    """The flat [tokens x k] experts, with DROPPED for rows whose logits nobody reads."""
    wanted = np.full_like(experts, DROPPED).reshape(-1, top_k)
    wanted[step.read_rows] = experts.reshape(-1, top_k)[step.read_rows]
    return wanted.reshape(-1)
