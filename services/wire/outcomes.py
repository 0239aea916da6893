"""What became of a frame and its pairs, as both ends of the stream speak of it."""

from dataclasses import dataclass
from typing import NamedTuple

from moesaic.v1 import expert_pb2

# Reasons that tell of what a service is at, and not that something is wrong with it, in a word.
PASSING_REASONS = {
    expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED: "not_hosted",
    expert_pb2.PAIR_FAILURE_REASON_OVERLOADED: "overloaded",
    expert_pb2.PAIR_FAILURE_REASON_EXPIRED: "expired",
}


@dataclass(frozen=True, slots=True)
class PairFailure:
    """Positions in the frame's pairs, ascending, that were not computed for one reason."""

    reason: "expert_pb2.PairFailureReason.ValueType"
    pairs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FrameError:
    """Why a whole frame was refused: a gRPC status code and a message that names the field."""

    status_code: int
    message: str


class Timings(NamedTuple):
    """Durations inside the expert service."""

    decode_nanos: int = 0
    queue_nanos: int = 0
    compute_nanos: int = 0
    encode_nanos: int = 0
