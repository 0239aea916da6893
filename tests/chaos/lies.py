"""Kinds of wrong reply: what a broken expert service makes of the replies of a good one."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch

from moesaic.v1 import expert_pb2
from services.wire.frames import encode_reply
from services.wire.outcomes import FrameError, PairFailure
from services.wire.received import ReceivedFrame

# A frame, the rows that it is to be answered with, and what is granted with the reply; the messages
# that are sent instead. A service that raises ends the stream.
Lie = Callable[[ReceivedFrame, torch.Tensor, int], Sequence[bytes]]


class StreamEnds(Exception):
    """The service ends the stream here."""


def _instead(**otherwise: Any) -> Lie:
    """A reply that differs from the right one in these fields."""

    def lie(frame: ReceivedFrame, rows: torch.Tensor, granted_pairs: int) -> Sequence[bytes]:
        return [_reply(frame, rows, granted_pairs, **otherwise)]

    return lie


def _reply(
    frame: ReceivedFrame, right: torch.Tensor, granted_pairs: int, **otherwise: Any
) -> bytes:
    fields: dict[str, Any] = {
        "frame_id": frame.frame_id,
        "rows": right,
        "granted_pairs": granted_pairs,
        "checksum": frame.has_checksum,
    }
    return encode_reply(**fields | otherwise)


def _refused(code: int) -> Lie:
    return _instead(rows=None, error=FrameError(code, "it is\nnot to be done"))


def _none_computed(reason: int) -> Lie:
    def lie(frame: ReceivedFrame, rows: torch.Tensor, granted_pairs: int) -> Sequence[bytes]:
        named = cast("expert_pb2.PairFailureReason.ValueType", reason)
        failures = [PairFailure(named, tuple(range(len(frame.pair_rows))))]
        return [_reply(frame, rows, granted_pairs, rows=None, failures=failures)]

    return lie


def _of_rows(change: Callable[[torch.Tensor], torch.Tensor]) -> Lie:
    def lie(frame: ReceivedFrame, rows: torch.Tensor, granted_pairs: int) -> Sequence[bytes]:
        return [_reply(frame, change(rows.clone()).contiguous(), granted_pairs)]

    return lie


def _one_bad_number(rows: torch.Tensor) -> torch.Tensor:
    rows[-1, -1] = math.inf
    return rows


def _one_other_number(rows: torch.Tensor) -> torch.Tensor:
    rows[-1, -1] += rows.abs().max()
    return rows


def _named(*pairs: int) -> Lie:
    failure = PairFailure(expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED, pairs)
    return _instead(failures=[failure])


def _another_frame(frame: ReceivedFrame, rows: torch.Tensor, granted_pairs: int) -> Sequence[bytes]:
    return [_reply(frame, rows, granted_pairs, frame_id=frame.frame_id + 1_000_000)]


def _twice(frame: ReceivedFrame, rows: torch.Tensor, granted_pairs: int) -> Sequence[bytes]:
    wrong = torch.full_like(rows, math.nan)
    return [_reply(frame, wrong, granted_pairs), _reply(frame, rows, 0)]


def _hangs(frame: ReceivedFrame, rows: torch.Tensor, granted_pairs: int) -> Sequence[bytes]:
    return []


def _ends(frame: ReceivedFrame, rows: torch.Tensor, granted_pairs: int) -> Sequence[bytes]:
    raise StreamEnds


LIES: Mapping[str, Lie] = {
    "refused as OK": _refused(0),
    "refused as INVALID_ARGUMENT": _refused(3),
    "refused as RESOURCE_EXHAUSTED": _refused(8),
    "refused as INTERNAL": _refused(13),
    "refused as DATA_LOSS": _refused(15),
    "refused with code 7777": _refused(7777),
    "no reason": _none_computed(expert_pb2.PAIR_FAILURE_REASON_UNSPECIFIED),
    "not hosted": _none_computed(expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED),
    "overloaded": _none_computed(expert_pb2.PAIR_FAILURE_REASON_OVERLOADED),
    "cancelled": _none_computed(expert_pb2.PAIR_FAILURE_REASON_CANCELLED),
    "reason 77": _none_computed(77),
    "a row less": _of_rows(lambda rows: rows[:-1]),
    "a row more": _of_rows(lambda rows: torch.cat([rows, rows[:1]])),
    "half of each row": _of_rows(lambda rows: rows[:, ::2]),
    "no checksum": _instead(checksum=False),
    "a pair that is none": _named(1 << 30),
    "a pair named twice": _named(0, 0),
    "not a number": _of_rows(lambda rows: torch.full_like(rows, math.nan)),
    "one infinite number": _of_rows(_one_bad_number),
    "another frame's number": _another_frame,
    "answered twice": _twice,
    "never answered": _hangs,
    "the stream ends": _ends,
}
# Finite numbers in the right form: what only a second computation shows.
SIGN = "another sign"
SILENT_LIES: Mapping[str, Lie] = {
    SIGN: _of_rows(lambda rows: -rows),
    "one other number": _of_rows(_one_other_number),
}
# The reply comes so much later than it could.
LATE_SECONDS = 0.3
LATE = "late"
KINDS = (*LIES, LATE)
