"""The frame codec in C: the usual layout of frames and replies, in one call each.

Without a compiler at install time AVAILABLE is false, and callers use the generated classes.
"""

from services.wire.native.messages import (
    AVAILABLE,
    FrameFields,
    decode_request,
    decode_response,
    encode_frame,
    encode_reply,
)

__all__ = [
    "AVAILABLE",
    "FrameFields",
    "decode_request",
    "decode_response",
    "encode_frame",
    "encode_reply",
]
