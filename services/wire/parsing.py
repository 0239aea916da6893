"""Reads a message by its generated class, its rows, where they are many, left where they lie."""

from typing import TypeAlias

from google.protobuf.message import DecodeError

from moesaic.v1 import expert_pb2
from services.wire.errors import InvalidRequest
from services.wire.payload import Payload, split_off
from services.wire.row_bytes import FRAME_OR_REPLY, ROWS

# Up to here the generated class's copy of the rows costs less than finding them.
COPIED_BYTES = 32 * 1024

_Message: TypeAlias = (
    expert_pb2.Frame | expert_pb2.FrameReply | expert_pb2.DispatchRequest | expert_pb2.DispatchResponse
)


def parse(message: _Message, data: bytes) -> None:
    """Read `data` into `message`. Raises InvalidRequest when it is none."""
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        name = message.DESCRIPTOR.name
        raise InvalidRequest(f"the bytes are no {name}: truncated, out of form, or text that is no UTF-8") from error


def frame_or_reply(data: bytes) -> Payload | None:
    """Where in a large DispatchRequest or DispatchResponse its frame or reply lies; None to read it all at once."""
    return split_off(data, 0, len(data), FRAME_OR_REPLY) if len(data) > COPIED_BYTES else None


def parse_rows_apart(message: expert_pb2.Frame | expert_pb2.FrameReply, data: bytes, where: Payload) -> memoryview:
    """Read what lies there into `message`, but not its rows; these. Raises InvalidRequest when it is none."""
    rows = split_off(data, where.start, where.end, ROWS)
    if rows is not None:
        parse(message, rows.rest)
        return memoryview(data)[rows.start : rows.end]
    parse(message, data[where.start : where.end])
    return memoryview(message.rows)
