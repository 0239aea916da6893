"""Checksums of frames and replies: CRC-32 over what routes and what is computed, in the order that the proto says."""

import struct
import zlib
from typing import NamedTuple

from moesaic.v1 import expert_pb2
from services import kernels
from services.wire.payload import FIXED32

CHECKSUM_BYTES = 4
_FRAME_TAG = bytes([expert_pb2.Frame.CHECKSUM_FIELD_NUMBER << 3 | FIXED32])
_REPLY_TAG = bytes([expert_pb2.FrameReply.CHECKSUM_FIELD_NUMBER << 3 | FIXED32])
_FRAME = struct.Struct("<QIII")
_REPLY = struct.Struct("<Q")
_WORD = 0xFFFFFFFF  # an enum's number is negative where bytes were altered


class ChecksumField(NamedTuple):
    """The field that stands between a message's head and its rows."""

    tag: bytes  # what stands before the checksum
    of_head: int  # the checksum so far; it goes on with the rows

    def with_rows(self, rows: memoryview | bytes) -> bytes:
        """The whole field, for these rows."""
        return self.tag + kernels.checksum(rows, self.of_head).to_bytes(CHECKSUM_BYTES, "little")


def field_of_frame(head: expert_pb2.Frame) -> ChecksumField:
    """The checksum field of a frame whose other fields, but for the rows, are these."""
    return ChecksumField(_FRAME_TAG, _of_frame_head(head))


def field_of_reply(head: expert_pb2.FrameReply) -> ChecksumField:
    """The checksum field of a reply whose other fields, but for the rows, are these."""
    return ChecksumField(_REPLY_TAG, _of_reply_head(head))


def of_frame(message: expert_pb2.Frame, rows: memoryview) -> int:
    """The checksum of a frame with these rows."""
    return kernels.checksum(rows, _of_frame_head(message))


def of_reply(message: expert_pb2.FrameReply, rows: memoryview) -> int:
    """The checksum of a reply with these rows."""
    return kernels.checksum(rows, _of_reply_head(message))


def refusal(said: int, found: int) -> str | None:
    """How a message that says one checksum and has another is refused; None where both are the same."""
    return None if said == found else f"checksum is {said:#010x}, but that of the bytes received is {found:#010x}"


def _of_frame_head(message: expert_pb2.Frame) -> int:
    numbers = _FRAME.pack(message.frame_id, message.layer, message.dtype & _WORD, message.num_rows)
    return zlib.crc32(b"".join((numbers, message.pair_rows, message.pair_experts, message.pair_weights)))


def _of_reply_head(message: expert_pb2.FrameReply) -> int:
    checksum = zlib.crc32(_REPLY.pack(message.frame_id))
    for failure in message.failures:
        words = (failure.reason & _WORD, *failure.pairs)
        checksum = zlib.crc32(struct.pack(f"<{len(words)}I", *words), checksum)
    return checksum
