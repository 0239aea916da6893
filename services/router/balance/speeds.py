"""What a plan takes the services to cost: one shape for all, and how fast each is, from their
fitted times.
"""

from collections.abc import Sequence

import numpy as np

from services.router.arrays import Floats
from services.router.load.load import ExpertLoad
from services.router.peers.fitted_cost import Nanos
from services.router.planning.costs import Costs

# Where no service has a fit: an expert's weights are read once, which is worth some tens of rows.
# Only ratios count.
UNKNOWN: Nanos = (0.0, 30_000.0, 1_000.0)
# Speeds that differ by less than this from the usual are equal, and those that differ more are by
# so much nearer: fits are never quite the same, and experts would follow their noise.
DEAD_BAND = 0.05


def costs_of(fits: Sequence[Nanos | None], load: ExpertLoad) -> Costs:
    """The costs of services with such fits, None where too little is known, under such a load.

    How a frame's time divides into fixed, experts and pairs is hard to tell from frames that are
    much alike, and two services of one kind may seem to differ in it: moves between them would
    chase a gain that is none. So the division is the mean one, and a service differs by one factor,
    its time for a frame of usual size ÷ the median.
    """
    usual = np.array([1.0, load.active.sum(), load.tokens.sum()])
    usual[1:] /= max(1, load.num_layers * len(fits))
    known = {
        index: np.array(fit)
        for index, fit in enumerate(fits)
        if fit is not None and usual @ fit > 0
    }
    times = np.array([usual @ fit for fit in known.values()])
    if not known:
        return Costs.equal(len(fits), *UNKNOWN)
    shape = np.mean([fit / time for fit, time in zip(known.values(), times, strict=True)], axis=0)
    typical = float(np.median(times))
    speeds = np.ones(len(fits))
    speeds[list(known)] = _apply_dead_band(times / typical)
    return Costs(*(typical * shape[:, None] * speeds))


def _apply_dead_band(factors: Floats) -> Floats:
    """Factors nearer to 1 by the dead band."""
    away = np.log(factors)
    banded: Floats = np.exp(np.sign(away) * np.maximum(0.0, np.abs(away) - DEAD_BAND))
    return banded
