"""Why pairs were not computed, as the next attempt at them, the metrics and the log need it."""

import logging
import time
from dataclasses import dataclass

from services.router.arrays import Indices

logger = logging.getLogger(__name__)

LOG_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServiceFailure:
    """One service's failure to compute pairs: `reason` is a word for metrics, `message` a sentence
    for people.

    A `verdict` says that the pairs themselves are the cause: services that find the same say the
    same. Without one the service may do better another time.
    """

    address: str
    reason: str
    message: str
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class FailedPairs:
    """Positions in the flat [tokens x k] pairs that were not computed; without `failure` nobody was
    asked to.
    """

    positions: Indices
    failure: ServiceFailure | None


class FailureLog:
    """Warns of failures, of each service and reason once in LOG_SECONDS."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, str], float] = {}

    def warn(self, failed: FailedPairs, layer: int) -> None:
        """Pairs of a layer were not computed, and are sent again."""
        failure, now = failed.failure, time.monotonic()
        if (
            failure is None
            or now - self._logged.get((failure.address, failure.reason), -LOG_SECONDS) < LOG_SECONDS
        ):
            return
        self._logged[failure.address, failure.reason] = now
        num_pairs = len(failed.positions)
        logger.warning("sending %d pairs of layer %d again: %s", num_pairs, layer, failure.message)
