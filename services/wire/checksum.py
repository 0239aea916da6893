"""Checksums of frames and replies: CRC-32 over what routes and what is computed, in the order that
the proto says.
"""

import struct
import zlib

from moesaic.v1 import expert_pb2

_FRAME = struct.Struct("<QIII")
_REPLY = struct.Struct("<Q")
_WORD = 0xFFFFFFFF  # an enum's number is negative where bytes were altered


def of_frame(message: expert_pb2.Frame) -> int:
    """The checksum that a frame of these fields has."""
    numbers = _FRAME.pack(message.frame_id, message.layer, message.dtype & _WORD, message.num_rows)
    head = b"".join((numbers, message.pair_rows, message.pair_experts, message.pair_weights))
    return zlib.crc32(message.rows, zlib.crc32(head))


def of_reply(message: expert_pb2.FrameReply) -> int:
    """The checksum that a reply of these fields has."""
    checksum = zlib.crc32(_REPLY.pack(message.frame_id))
    for failure in message.failures:
        words = (failure.reason & _WORD, *failure.pairs)
        checksum = zlib.crc32(struct.pack(f"<{len(words)}I", *words), checksum)
    return zlib.crc32(message.rows, checksum)


def refusal(stated: int, found: int) -> str | None:
    """How a message that says one checksum and has another is refused; None where both are the
    same.
    """
    return (
        None
        if stated == found
        else f"checksum is {stated:#010x}, but that of the bytes received is {found:#010x}"
    )
