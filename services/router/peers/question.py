"""A frame of the router's own: rows for experts, and what they come to where that is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from services.router.peers.expected import Expected
from services.wire.errors import InvalidRequest, Overloaded
from services.wire.expert_key import ExpertKey
from services.wire.frames import DTYPES, encode_frame
from services.wire.outcomes import PASSING_REASONS
from services.wire.quoting import peers_words
from services.wire.received import ReceivedReply, Words
from services.wire.row_bytes import are_finite

_OVERLOADED = Overloaded.status.value[0]
# How far two computations of one row may be apart, as a share of its largest number: orders of
# addition and roundings in between differ from machine to machine.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.06}

Sent = TypeVar("Sent")


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """`rows` [rows, hidden] of a layer, and pairs of them and experts. With `weights` [pairs] each
    row is answered once, by its weighted sum, else each pair is.

    `answer`, where known, is what comes back, [pairs or rows, hidden].
    """

    layer: int
    rows: torch.Tensor
    pair_rows: Words
    experts: Words
    weights: npt.NDArray[np.float32] | None = None
    requests: Sequence[int] = ()
    answer: torch.Tensor | None = None

    @classmethod
    def of_zeros(cls, expected: Expected, expert: ExpertKey) -> "Question":
        """A row of zeros for one expert: whatever its weights are, what comes back is finite."""
        rows = torch.zeros(1, expected.hidden_size, dtype=DTYPES[expected.wire_type])
        return cls(expert.layer, rows, np.zeros(1, np.uint32), np.array([expert.expert], np.uint32))

    @property
    def keys(self) -> frozenset[ExpertKey]:
        """The experts that it is for."""
        return frozenset(ExpertKey(self.layer, expert) for expert in set(self.experts.tolist()))

    @property
    def num_answers(self) -> int:
        """Rows that have to come back."""
        return len(self.experts if self.weights is None else self.rows)

    def encode(self, frame_id: int, remaining_nanos: int) -> bytes:
        """The message."""
        return encode_frame(
            frame_id=frame_id,
            layer=self.layer,
            rows=self.rows,
            pair_rows=self.pair_rows,
            pair_experts=self.experts,
            pair_weights=self.weights,
            remaining_nanos=remaining_nanos,
            traceparent="",
            requests=self.requests,
            checksum=True,
        )

    def sent_by(self, send: Callable[[Callable[[int, int], bytes], int, int], Sent]) -> Sent:
        """Send it by a stream's `send`; what that returns."""
        return send(self.encode, len(self.experts), len(self.keys))

    @staticmethod
    def is_put_off(reply: ReceivedReply) -> bool:
        """Whether the answer says what the service is at, and nothing else."""
        if reply.error is not None:
            return bool(reply.error.status_code == _OVERLOADED)
        return bool(reply.failures) and all(
            failure.reason in PASSING_REASONS for failure in reply.failures
        )

    def fault_of(self, reply: ReceivedReply) -> str | None:
        """What is wrong with the answer, in words."""
        if reply.error is not None:
            return f"it was refused: {peers_words(reply.error.message)}"
        if reply.failures or not reply.has_checksum:
            return "it was not computed" if reply.failures else "its answer has no checksum"
        try:
            rows = self.rows_of(reply)
        except InvalidRequest as error:
            return str(error)
        if len(rows) != self.num_answers:
            return f"{len(rows)} rows came back for {self.num_answers}"
        if not are_finite(rows):
            return "numbers came back that are not finite"
        if self.answer is not None and self.deviation(rows, self.answer) > tolerance(rows.dtype):
            return "other numbers came back than the expert gives"
        return None

    def rows_of(self, reply: ReceivedReply) -> torch.Tensor:
        """What came back, never to be written to. Raises InvalidRequest for what are no rows."""
        return reply.rows(self.rows.dtype, self.rows.shape[1])

    def deviation(self, rows: torch.Tensor, reference: torch.Tensor) -> float:
        """How far the worst of two answers' rows lies from the reference, as a share of that one's
        largest number.
        """
        return float(self.deviations(rows, reference).max()) if len(rows) else 0.0

    def deviations(self, rows: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """The same of each row, [rows]; infinite where one of the two is not finite."""
        # Of smaller numbers than that a type keeps fewer digits: their last one is no deviation.
        smallest = torch.finfo(reference.dtype).tiny
        scale = reference.double().abs().amax(1)
        scale = torch.where(scale == 0, self._least_scales(reference.dtype), scale)
        apart = (rows.double() - reference.double()).abs().amax(1) / scale.clamp_min(smallest)
        return apart.nan_to_num(nan=torch.inf, posinf=torch.inf)

    def _least_scales(self, dtype: torch.dtype) -> torch.Tensor:
        """Of answers that are nothing but zeros, which have no largest number: as much as the
        rounding of what was asked about may leave of them elsewhere is within the tolerance.
        """
        asked = self.rows.double().abs().amax(1)
        if self.weights is None:
            asked = asked[torch.from_numpy(self.pair_rows.astype(np.int64))]
        return asked * torch.finfo(dtype).eps / tolerance(dtype)


def tolerance(dtype: torch.dtype) -> float:
    """The largest deviation of rows of a type that good services may show."""
    return TOLERANCES[dtype]
