"""Checks frames against the contract and finds out which of their pairs can be computed here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from services.expert.admitted_frame import AdmittedFrame, FrameAnswer, not_hosted
from services.expert.compute import FrameWork
from services.model.checkpoint import Checkpoint
from services.model.weighted_sums import Positions
from services.wire.bad_frame import BadFrame
from services.wire.outcomes import PairFailure
from services.wire.received import ReceivedFrame, Words
from services.wire.row_bytes import type_name

NOWHERE = -1
# What rows may travel as beside the type that is computed in: types whose every value that one has
# too.
NARROWER = {torch.float32: (torch.bfloat16,)}


@dataclass(frozen=True)
class Contract:
    """What a frame must be for this service."""

    dtype: torch.dtype
    hidden_size: int
    moe_layers: tuple[int, ...]
    num_experts: int
    num_experts_per_token: int
    max_frame_bytes: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, dtype: torch.dtype, max_frame_bytes: int) -> "Contract":
        """What frames for experts of this checkpoint must be, which are computed in `dtype`."""
        return cls(
            dtype,
            checkpoint.hidden_size,
            checkpoint.moe_layers,
            checkpoint.num_experts,
            checkpoint.num_experts_per_token,
            max_frame_bytes,
        )

    @cached_property
    def max_rows(self) -> dict[torch.dtype, int]:
        """Types that a frame's rows may have, and of each how many rows a message has room for."""
        dtypes = (self.dtype, *NARROWER.get(self.dtype, ()))
        return {
            dtype: self.max_frame_bytes // (self.hidden_size * dtype.itemsize) for dtype in dtypes
        }

    @cached_property
    def most_pairs(self) -> int:
        """Pairs of the largest frame that is let in, whatever its kind."""
        return max(self.max_rows.values()) * self.num_experts_per_token

    @cached_property
    def _row_numbers(self) -> Positions:
        return np.arange(max(self.max_rows.values()))

    def check(self, frame: ReceivedFrame, num_bytes: int) -> torch.Tensor:
        """The frame's rows, [num_rows, hidden_size]; its pairs are checked where they are looked
        up.

        Raises BadFrame naming the field and the limit.
        """
        if num_bytes > self.max_frame_bytes:
            raise _bad(
                frame,
                f"the message has {num_bytes} bytes; max_frame_bytes is {self.max_frame_bytes}",
            )
        if frame.layer not in self.moe_layers:
            raise _bad(
                frame,
                f"layer is {frame.layer}; the layers with experts are {_listing(self.moe_layers)}",
            )
        max_rows = self.max_rows.get(frame.dtype)
        if max_rows is None:
            taken = " or ".join(map(type_name, self.max_rows))
            raise _bad(frame, f"dtype is {type_name(frame.dtype)}; this service takes {taken}")
        rows = frame.rows(self.hidden_size)
        num_pairs = len(frame.pair_rows)
        if len(frame.pair_experts) != num_pairs:
            raise _bad(
                frame, f"pair_experts has {len(frame.pair_experts)} pairs, pair_rows {num_pairs}"
            )
        if len(frame.pair_weights):
            self._check_weights(frame, num_pairs)
        elif num_pairs > max_rows:
            raise _bad(
                frame,
                f"pair_rows has {num_pairs} pairs; a reply of max_frame_bytes holds {max_rows}",
            )
        return rows

    def _check_weights(self, frame: ReceivedFrame, num_pairs: int) -> None:
        # The reply has a row for each of the frame's, so that it is what is computed that needs a
        # limit.
        most = self.max_rows[frame.dtype] * self.num_experts_per_token
        if num_pairs > most:
            raise _bad(
                frame, f"pair_rows has {num_pairs} pairs; with pair_weights a frame may have {most}"
            )
        if len(frame.pair_weights) != num_pairs:
            raise _bad(
                frame, f"pair_weights has {len(frame.pair_weights)} pairs, pair_rows {num_pairs}"
            )
        if not np.isfinite(frame.pair_weights).all():
            raise _bad(frame, "pair_weights has a weight that is not finite")

    def pair_rows(self, frame: ReceivedFrame) -> Positions:
        """The row of each pair of a frame whose rows are checked. Raises BadFrame for a row that it
        has not.
        """
        return _look_up(self._row_numbers[: frame.num_rows], frame, "pair_rows", frame.pair_rows)


class Slots:
    """Where each expert that is ready stands, by layer: what a frame is looked up in.

    `table` [layers, experts] has NOWHERE for all others. Each entry is read and written in one
    piece, so that threads may read it that do not hold the interpreter's lock.
    """

    def __init__(self, contract: Contract) -> None:
        shape = (max(contract.moe_layers) + 1, contract.num_experts)
        self.table = np.full(shape, NOWHERE, np.int64)

    def put(self, layer: int, expert: int, slot: int) -> None:
        """The expert is ready, in this slot."""
        self.table[layer, expert] = slot

    def take_away(self, layer: int, expert: int) -> None:
        """No new frame is served by this expert."""
        self.table[layer, expert] = NOWHERE

    def take_all_away(self) -> None:
        """No new frame is served by any expert."""
        self.table.fill(NOWHERE)

    def look_up(self, frame: ReceivedFrame) -> Positions:
        """The slot of each pair's expert, or NOWHERE. Raises BadFrame for an expert that the model
        has not.
        """
        return _look_up(self.table[frame.layer], frame, "pair_experts", frame.pair_experts)


def admit(
    frame: ReceivedFrame,
    num_bytes: int,
    contract: Contract,
    slots: Slots,
    received_nanos: int,
    deliver: Callable[[AdmittedFrame, FrameAnswer], None],
) -> AdmittedFrame:
    """Admit a frame: its work is the pairs whose experts are ready; the others are NOT_HOSTED.

    The frame came in a message of `num_bytes`; its deadline is anchored at `received_nanos`, by the
    monotonic clock. Raises BadFrame, naming the field and the limit, when it breaks the contract.
    """
    rows = contract.check(frame, num_bytes)
    pair_rows, slot_of_pair = contract.pair_rows(frame), slots.look_up(frame)
    positions: tuple[int, ...] | None = None
    weights = frame.pair_weights if len(frame.pair_weights) else None
    failures: tuple[PairFailure, ...] = ()
    if NOWHERE in slot_of_pair.tolist():
        absent = slot_of_pair == NOWHERE
        served = np.flatnonzero(~absent)
        positions = tuple(served.tolist())
        failures = (not_hosted(np.flatnonzero(absent).tolist()),)
        slot_of_pair, pair_rows = slot_of_pair[served], pair_rows[served]
        weights = weights if weights is None else weights[served]
    now = time.monotonic_ns()
    return AdmittedFrame(
        frame=frame,
        num_bytes=num_bytes,
        work=FrameWork(rows, pair_rows, slot_of_pair, weights),
        failures=failures,
        positions=positions,
        deadline_nanos=received_nanos + frame.remaining_nanos,
        decode_nanos=now - received_nanos,
        admitted_nanos=now,
        deliver=deliver,
    )


def _look_up(table: Positions, frame: ReceivedFrame, field: str, indices: Words) -> Positions:
    # The look-up is the check as well: of a few indices, even finding the largest takes longer.
    # None is negative.
    try:
        return table.take(indices)
    except IndexError:
        raise _bad(frame, f"{field} has {indices.max()}; it must be below {len(table)}") from None


def _bad(frame: ReceivedFrame, message: str) -> BadFrame:
    return BadFrame(
        frame.frame_id, message, len(frame.pair_experts), has_checksum=frame.has_checksum
    )


def _listing(layers: tuple[int, ...]) -> str:
    if layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(str(layer) for layer in layers)
