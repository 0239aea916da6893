"""What a load is: how many requests at a time or how many a second, and when it ends."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, count, islice, repeat, takewhile
from typing import Literal

ArrivalProcess = Literal["poisson", "constant"]


@dataclass(frozen=True)
class Bounds:
    """The load ends after so many requests or, for new ones, after so many seconds: at what comes
    first.

    At least one of them is given.
    """

    requests: int | None
    seconds: float | None


@dataclass(frozen=True)
class ClosedLoop:
    """So many users, each of whom sends the next request when the one before has ended."""

    concurrency: int

    @property
    def label(self) -> str:
        """The load in a few words."""
        return f"{self.concurrency} at a time"


@dataclass(frozen=True)
class OpenLoop:
    """Requests that arrive at a rate, however fast they are served; only so many are in flight."""

    requests_per_second: float
    arrivals: ArrivalProcess
    seed: int
    max_in_flight: int

    @property
    def label(self) -> str:
        """The load in a few words."""
        return f"{self.requests_per_second:g}/s"


OfferedLoad = ClosedLoop | OpenLoop


def due_seconds(load: OpenLoop, bounds: Bounds) -> Iterator[float]:
    """When each request is due, in seconds since the load began; the first one at once.

    Constant arrivals are evenly spaced; Poisson arrivals have independent, exponentially
    distributed gaps, the same ones for the same seed.
    """
    if load.arrivals == "constant":
        due: Iterator[float] = (number / load.requests_per_second for number in count())
    else:
        draws = random.Random(load.seed)
        gaps = (draws.expovariate(load.requests_per_second) for _ in repeat(None))
        due = accumulate(gaps, initial=0.0)
    if bounds.seconds is not None:
        most = bounds.seconds
        due = takewhile(lambda moment: moment < most, due)
    return islice(due, bounds.requests)
