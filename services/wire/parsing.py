"""Reads messages by their generated classes, however they are laid out, and refuses those that
break the contract.
"""

import grpc
from google.protobuf.message import DecodeError

from moesaic.v1 import expert_pb2
from services.wire import checksum as checksums
from services.wire.bad_frame import BadFrame
from services.wire.errors import InvalidRequest
from services.wire.native import FrameFields


def parse(message: expert_pb2.DispatchRequest | expert_pb2.DispatchResponse, data: bytes) -> None:
    """Read `data` into `message`. Raises InvalidRequest when it is none."""
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        name = message.DESCRIPTOR.name
        raise InvalidRequest(
            f"the bytes are no {name}: truncated, out of form, or text that is no UTF-8"
        ) from error


def fields_of(message: expert_pb2.Frame) -> FrameFields:
    """What the kernels read of such a frame. Raises BadFrame for a wrong checksum and for arrays
    that are not whole.
    """
    has_checksum = message.HasField("checksum")
    if has_checksum and (
        refusal := checksums.refusal(message.checksum, checksums.of_frame(message))
    ):
        raise _bad(message, refusal, grpc.StatusCode.DATA_LOSS)
    return (
        message.frame_id,
        message.layer,
        message.dtype,
        message.num_rows,
        memoryview(message.rows),
        _whole(message, "pair_rows", message.pair_rows),
        _whole(message, "pair_experts", message.pair_experts),
        _whole(message, "pair_weights", message.pair_weights),
        message.remaining_nanos,
        message.traceparent,
        tuple(message.requests),
        has_checksum,
    )


def _whole(message: expert_pb2.Frame, field: str, data: bytes) -> bytes:
    if len(data) % 4:
        raise _bad(message, f"{field} has {len(data)} bytes, which is no multiple of 4")
    return data


def _bad(
    message: expert_pb2.Frame,
    reason: str,
    status: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT,
) -> BadFrame:
    num_pairs, has_checksum = len(message.pair_experts) // 4, message.HasField("checksum")
    return BadFrame(message.frame_id, reason, num_pairs, status=status, has_checksum=has_checksum)
