"""Service level objectives: bounds on a request's latencies, and which requests keep them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from services.cli.bench.sample import Sample

SECONDS_PER_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
FIGURES: dict[str, Callable[[Sample], float | None]] = {
    "ttft": lambda sample: sample.first_token_seconds,
    "itl": lambda sample: sample.slow_interval_seconds,
    "tpot": lambda sample: sample.per_token_seconds,
    "e2e": lambda sample: sample.end_to_end_seconds,
}
_OBJECTIVE = re.compile(r"\s*(\w+)\s*(?:<=|=|<)\s*(\d+(?:\.\d+)?)\s*(us|ms|s)\s*")


@dataclass(frozen=True)
class Objective:
    """A figure of a request, by its short name, and the most that it may be."""

    figure: str
    most_seconds: float

    def is_kept_by(self, sample: Sample) -> bool:
        """Whether a completed request keeps it; one without such a figure (no second
        token) does.
        """
        value = FIGURES[self.figure](sample)
        return value is None or value <= self.most_seconds


def read_objectives(texts: Iterable[str]) -> list[Objective]:
    """Objectives written like `ttft=200ms`; raises ValueError for what is none."""
    return [_read(text) for text in texts]


def num_good(samples: Iterable[Sample], objectives: Sequence[Objective]) -> int:
    """Requests that were completed and keep every objective."""
    completed = (sample for sample in samples if sample.completion is not None)
    return sum(
        all(objective.is_kept_by(sample) for objective in objectives) for sample in completed
    )


def _read(text: str) -> Objective:
    match = _OBJECTIVE.fullmatch(text)
    if match is None or match[1] not in FIGURES:
        raise ValueError(
            f"{text!r} is no objective such as ttft=200ms; figures are {', '.join(FIGURES)}"
        )
    return Objective(match[1], float(match[2]) * SECONDS_PER_UNIT[match[3]])
