"""What a frame costs its service: a time for the frame, for each expert in it and for each pair,
fitted as it goes.
"""

from itertools import combinations

import numpy as np

from services.router.arrays import Floats

Nanos = tuple[
    float, float, float
]  # for the frame, for each expert that it has any pair of, and for each pair

FRAMES_PER_FIT = 64
# A fit takes as long as entering hundreds of frames, and changes little once there is one.
FRAMES_PER_LATER_FIT = 256
# Of the frames so far so many weigh as much in the fit as those before them.
HALF_LIFE_FRAMES = 4096
# A frame that took so many times as long as is usual among those around it was held up, and says
# nothing of its cost.
OUTLIER = 3.0
# Below this share of the inputs' spread in the direction that they vary least in, the three are not
# told apart.
LEAST_SPREAD = 1e-4


class FittedCost:
    """Least squares, none below 0, over running sums that fade; a frame is a list's entry until
    enough are together.
    """

    def __init__(self) -> None:
        self.nanos: Nanos | None = None  # while too few frames came, or too much like one another
        self._frames: list[tuple[int, int, int]] = []
        self._gram: Floats = np.zeros((3, 3))
        self._moments: Floats = np.zeros(3)

    def add(self, num_experts: int, num_pairs: int, nanos: int) -> None:
        """A frame was computed, in so many nanoseconds of its service."""
        self._frames.append((num_experts, num_pairs, nanos))
        if len(self._frames) >= (FRAMES_PER_FIT if self.nanos is None else FRAMES_PER_LATER_FIT):
            self._fold()

    def _fold(self) -> None:
        frames: Floats = np.array(self._frames, dtype=np.float64)
        self._frames.clear()
        # By a frame's time for a pair, so that the error in a prefill's thousands does not hide
        # what decoding takes.
        weights = 1 / np.maximum(frames[:, 1], 1.0)
        inputs = np.column_stack([weights, frames[:, 0] * weights, np.ones(len(frames))])
        targets = frames[:, 2] * weights
        shape = (
            non_negative(inputs.T @ inputs, inputs.T @ targets)
            if self.nanos is None
            else np.array(self.nanos)
        )
        slowness = targets / np.maximum(inputs @ shape, np.finfo(np.float32).tiny)
        is_usual = slowness <= OUTLIER * np.median(slowness)
        inputs, targets = inputs[is_usual], targets[is_usual]
        kept = 0.5 ** (len(frames) / HALF_LIFE_FRAMES)
        self._gram = kept * self._gram + inputs.T @ inputs
        self._moments = kept * self._moments + inputs.T @ targets
        self.nanos = self._solve()

    def _solve(self) -> Nanos | None:
        scales = np.sqrt(np.maximum(self._gram.diagonal(), np.finfo(np.float64).tiny))
        if np.linalg.eigvalsh(self._gram / np.outer(scales, scales))[0] >= LEAST_SPREAD:
            frame, expert, pair = non_negative(self._gram, self._moments).tolist()
            return frame, expert, pair
        if self.nanos is None:
            return None
        # What was found when they differed more, as much slower or faster as they have become.
        before = np.array(self.nanos)
        change = float(before @ self._moments) / max(
            float(before @ self._gram @ before), np.finfo(np.float64).tiny
        )
        frame, expert, pair = (before * max(change, 0.0)).tolist()
        return frame, expert, pair


def non_negative(gram: Floats, moments: Floats) -> Floats:
    """The x >= 0 [3] that minimises x gram x - 2 moments x: the best of the eight ways to leave
    some of the three out.

    `gram` [3, 3] is the inputs' products with one another, `moments` [3] those with the targets.
    """
    found = _solution(gram, moments)
    if (found >= 0).all():
        return found
    best, least = np.zeros(3), 0.0
    for used in [*combinations(range(3), 2), *combinations(range(3), 1)]:
        found = np.zeros(3)
        found[list(used)] = _solution(gram[np.ix_(used, used)], moments[list(used)])
        error = float(found @ gram @ found - 2 * moments @ found)
        if (found >= 0).all() and error < least:
            best, least = found, error
    return best


def _solution(gram: Floats, moments: Floats) -> Floats:
    """Of gram x = moments, with unknowns of one scale; what cannot be told apart is shared out
    evenly.
    """
    scales = np.sqrt(np.maximum(gram.diagonal(), np.finfo(np.float64).tiny))
    solved = np.linalg.lstsq(gram / np.outer(scales, scales), moments / scales, rcond=1e-10)[0]
    return np.asarray(solved / scales, dtype=np.float64)
