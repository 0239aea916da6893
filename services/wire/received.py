"""Frames, cancellations and replies as they arrived, their rows still lying in the message."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from services.wire.bad_frame import BadFrame
from services.wire.errors import InvalidRequest
from services.wire.outcomes import FrameError, PairFailure, Timings
from services.wire.row_bytes import rows_of

Words: TypeAlias = npt.NDArray[np.uint32]
Weights: TypeAlias = npt.NDArray[np.float32]


class ReceivedFrame(NamedTuple):
    """A frame as it arrived; `rows_bytes` still lies in the received message.

    Where there are `pair_weights`, each row's weighted sum is asked for, else each pair's output.
    """

    frame_id: int
    layer: int
    dtype: torch.dtype
    num_rows: int
    rows_bytes: memoryview
    pair_rows: Words
    pair_experts: Words
    pair_weights: Weights
    remaining_nanos: int
    traceparent: str
    requests: tuple[int, ...]
    has_checksum: bool = False  # then the answer has one too

    def rows(self, hidden_size: int) -> torch.Tensor:
        """View the rows, [num_rows, hidden_size]; never write to it.

        Raises BadFrame when the bytes are fewer or more.
        """
        expected = self.num_rows * hidden_size * self.dtype.itemsize
        if len(self.rows_bytes) != expected:
            raise BadFrame(
                self.frame_id,
                f"rows has {len(self.rows_bytes)} bytes, not {expected} for {self.num_rows} of "
                f"{hidden_size}",
                len(self.pair_experts),
                has_checksum=self.has_checksum,
            )
        return rows_of(self.rows_bytes, self.dtype, hidden_size)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Requests that nobody waits for any more."""

    requests: tuple[int, ...]


class ReceivedReply(NamedTuple):
    """What became of a frame; `rows_bytes` still lies in the received message."""

    frame_id: int
    rows_bytes: memoryview
    failures: tuple[PairFailure, ...]
    error: FrameError | None
    timings: Timings
    batch_frames: int
    has_checksum: bool = False

    def num_rows(self, dtype: torch.dtype, hidden_size: int) -> int:
        """How many rows came. Raises InvalidRequest when the bytes are no whole number of rows."""
        row_bytes = hidden_size * dtype.itemsize
        num_rows, rest = divmod(len(self.rows_bytes), row_bytes)
        if rest:
            raise InvalidRequest(
                f"rows has {len(self.rows_bytes)} bytes, no multiple of a row's {row_bytes}"
            )
        return num_rows

    def rows(self, dtype: torch.dtype, hidden_size: int) -> torch.Tensor:
        """View the rows, [computed pairs or the frame's rows, hidden_size]; never write to it.

        Raises InvalidRequest when the bytes are no whole number of rows.
        """
        self.num_rows(dtype, hidden_size)
        return rows_of(self.rows_bytes, dtype, hidden_size)


class Response(NamedTuple):
    """What the service said: a reply or none, and the credit so far (0 for no change)."""

    reply: ReceivedReply | None
    granted_pairs: int
