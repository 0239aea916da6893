"""Checks frames against the contract and finds out which of their pairs can be computed here."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from services.expert.compute import Positions, Work
from services.expert.job import Answer, Job, not_hosted
from services.wire.frames import BadFrame, Indices, ReceivedFrame
from services.wire.outcomes import PairFailure

NOWHERE = -1


@dataclass(frozen=True)
class Contract:
    """What a frame must be for this service."""

    dtype: torch.dtype
    hidden_size: int
    moe_layers: tuple[int, ...]
    num_experts: int
    max_frame_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row on the wire."""
        return self.hidden_size * self.dtype.itemsize

    def check(self, frame: ReceivedFrame, num_bytes: int) -> torch.Tensor:
        """The frame's rows, [num_rows, hidden_size]. Raises BadFrame naming the field and the limit."""
        if num_bytes > self.max_frame_bytes:
            raise _bad(frame, f"the message has {num_bytes} bytes; max_frame_bytes is {self.max_frame_bytes}")
        if frame.layer not in self.moe_layers:
            raise _bad(frame, f"layer is {frame.layer}; the layers with experts are {_listed(self.moe_layers)}")
        if frame.dtype != self.dtype:
            raise _bad(frame, f"dtype is {_name(frame.dtype)}; this service computes in {_name(self.dtype)}")
        rows = frame.rows(self.hidden_size)
        self._check_pairs(frame)
        return rows

    def _check_pairs(self, frame: ReceivedFrame) -> None:
        num_pairs = len(frame.pair_rows)
        if len(frame.pair_experts) != num_pairs:
            raise _bad(frame, f"pair_experts has {len(frame.pair_experts)} pairs, pair_rows {num_pairs}")
        if num_pairs * self.row_bytes > self.max_frame_bytes:
            most = self.max_frame_bytes // self.row_bytes
            raise _bad(frame, f"pair_rows has {num_pairs} pairs; a reply of max_frame_bytes holds {most}")
        _check_below(frame, "pair_rows", frame.pair_rows, frame.num_rows)
        _check_below(frame, "pair_experts", frame.pair_experts, self.num_experts)


class Slots:
    """Where each expert that is ready stands, by layer: what a frame is looked up in."""

    def __init__(self, contract: Contract) -> None:
        self._of_layer = {layer: np.full(contract.num_experts, NOWHERE, np.int64) for layer in contract.moe_layers}

    def put(self, layer: int, expert: int, slot: int) -> None:
        """The expert is ready, in this slot."""
        self._of_layer[layer][expert] = slot

    def take_away(self, layer: int, expert: int) -> None:
        """No new frame is served by this expert."""
        self._of_layer[layer][expert] = NOWHERE

    def of(self, layer: int, experts: Indices) -> Positions:
        """The slot of each expert, or NOWHERE."""
        return self._of_layer[layer][experts]


def admit(
    frame: ReceivedFrame,
    rows: torch.Tensor,
    slots: Slots,
    received_nanos: int,
    deliver: Callable[[Job, Answer], None],
) -> Job:
    """A job for the pairs of a checked frame whose experts are ready; the others are NOT_HOSTED.

    The deadline is anchored at `received_nanos`, by the monotonic clock.
    """
    slot_of_pair = slots.of(frame.layer, frame.pair_experts)
    pair_rows = frame.pair_rows.astype(np.int64)
    positions: tuple[int, ...] | None = None
    failures: tuple[PairFailure, ...] = ()
    absent = slot_of_pair == NOWHERE
    if absent.any():
        served = np.flatnonzero(~absent)
        positions = tuple(served.tolist())
        failures = (not_hosted(np.flatnonzero(absent).tolist()),)
        slot_of_pair, pair_rows = slot_of_pair[served], pair_rows[served]
    now = time.monotonic_ns()
    return Job(
        frame=frame,
        work=Work(rows, pair_rows, slot_of_pair),
        failures=failures,
        positions=positions,
        deadline_nanos=received_nanos + frame.remaining_nanos,
        decode_nanos=now - received_nanos,
        deliver=deliver,
        admitted_nanos=now,
    )


def _check_below(frame: ReceivedFrame, field: str, indices: Indices, limit: int) -> None:
    if len(indices) and (largest := int(indices.max())) >= limit:
        raise _bad(frame, f"{field} has {largest}; it must be below {limit}")


def _bad(frame: ReceivedFrame, message: str) -> BadFrame:
    return BadFrame(frame.frame_id, message, len(frame.pair_experts))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(layers: tuple[int, ...]) -> str:
    if layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(str(layer) for layer in layers)
