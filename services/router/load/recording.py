"""Routing as it was: every step's choice of experts, in memory and in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from services.router.arrays import Counts
from services.router.load.load import ExpertLoad
from services.wire.errors import InvalidRequest

FORMAT = 1
DROPPED_ID = 0xFFFF  # in the place of an expert: its pair was not computed
ExpertIds = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Recording:
    """The steps of one topic, one after the other.

    `experts` [layers, tokens, k] has all steps' tokens, layers with experts alone in their order,
    with DROPPED_ID for a pair that was not computed; `rows` [steps] the tokens of each step, and
    `is_decode` [steps] whether they all were the next token of a sequence. Every layer has
    `num_experts`.
    """

    topic: str
    num_experts: int
    experts: ExpertIds
    rows: Counts
    is_decode: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.experts.ndim != 3 or self.rows.shape != self.is_decode.shape or self.rows.ndim != 1:
            raise ValueError(
                "a recording takes experts [layers, tokens, k], rows [steps] and is_decode [steps]"
            )
        if int(self.rows.sum()) != self.experts.shape[1]:
            raise ValueError(
                f"steps of {int(self.rows.sum())} tokens, and experts of {self.experts.shape[1]}"
            )
        known = self.experts[self.experts != DROPPED_ID]
        if known.size and int(known.max()) >= self.num_experts:
            raise ValueError(f"expert {int(known.max())} of {self.num_experts}, which count from 0")

    @property
    def num_steps(self) -> int:
        return len(self.rows)

    @property
    def num_layers(self) -> int:
        """Layers that have experts."""
        return len(self.experts)

    @cached_property
    def _ends(self) -> Counts:
        return np.concatenate([[0], np.cumsum(self.rows)])

    def step(self, step: int) -> ExpertIds:
        """The experts of one step, [layers, rows, k]: a view."""
        return self.experts[:, self._ends[step] : self._ends[step + 1]]

    def between(self, first: int, last: int) -> "Recording":
        """The steps from `first` up to `last`, without that; a view."""
        tokens = self.experts[:, self._ends[first] : self._ends[last]]
        return Recording(
            self.topic, self.num_experts, tokens, self.rows[first:last], self.is_decode[first:last]
        )

    def regrouped(self, num_tokens: int) -> "Recording":
        """The same tokens in steps of so many; what is left over at the end is left out. A view.

        A step is one of decode where all that it is made of were.
        """
        num_steps = self.experts.shape[1] // num_tokens
        token_is_decode = np.repeat(self.is_decode, self.rows)[: num_steps * num_tokens].reshape(
            num_steps, num_tokens
        )
        return Recording(
            self.topic,
            self.num_experts,
            self.experts[:, : num_steps * num_tokens],
            np.full(num_steps, num_tokens, dtype=np.int64),
            np.asarray(token_is_decode.all(axis=1)),
        )

    def counts(self) -> Counts:
        """The pairs of each expert in every layer of every step, [steps, layers, experts]."""
        width = self.num_experts + 1  # one more, for dropped pairs
        experts = np.minimum(self.experts, self.num_experts).astype(np.int64)
        steps = np.repeat(np.arange(self.num_steps), self.rows)
        layers = np.arange(self.num_layers)[:, None, None]
        places = (steps[None, :, None] * self.num_layers + layers) * width + experts
        counts = np.bincount(places.ravel(), minlength=self.num_steps * self.num_layers * width)
        return counts.reshape(self.num_steps, self.num_layers, width)[:, :, : self.num_experts]

    def load(self) -> ExpertLoad:
        """The load in a mean step. Raises ValueError where there is no step."""
        if not self.num_steps:
            raise ValueError(f"the recording of {self.topic!r} has no steps")
        counts = self.counts()
        return ExpertLoad(counts.mean(axis=0), (counts > 0).mean(axis=0))

    def write(self, path: Path) -> None:
        """Write an .npz that `read_recording` reads; numpy alone reads it too."""
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                format=np.int64(FORMAT),
                topic=np.str_(self.topic),
                num_experts=np.int64(self.num_experts),
                experts=self.experts,
                rows=self.rows,
                is_decode=self.is_decode,
            )


def joined(recordings: Sequence[Recording]) -> Recording:
    """Recordings of one model behind one another; the first one's topic stands for all."""
    first = recordings[0]
    return Recording(
        first.topic,
        first.num_experts,
        np.concatenate([recording.experts for recording in recordings], axis=1),
        np.concatenate([recording.rows for recording in recordings]),
        np.concatenate([recording.is_decode for recording in recordings]),
    )


def read_recording(path: Path) -> Recording:
    """Raises InvalidRequest for a file that is no recording, and OSError where there is none to
    read.
    """
    try:
        # Opened here, since numpy leaves a file open that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = int(file["format"])
            if found != FORMAT:
                raise InvalidRequest(
                    f"{path} is a recording in format {found}; this version reads format {FORMAT}"
                )
            return Recording(
                str(file["topic"]),
                int(file["num_experts"]),
                file["experts"],
                file["rows"],
                file["is_decode"],
            )
    except (EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise InvalidRequest(f"{path} is no recording of routing: {error}") from error
