"""Rows are given by the address of a tensor's data, their number, their bytes, and the bytes from
one to the next.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from services.wire.native.messages import FrameFields, ReplyFields

def encode_frame(
    *,
    row_indices: npt.NDArray[np.int64] | None,
    pair_rows: npt.NDArray[np.uint32],
    pair_experts: npt.NDArray[np.uint32],
    pair_weights: npt.NDArray[np.float32] | None,
    requests: Iterable[int],
    traceparent: str,
    frame_id: int,
    layer: int,
    element_type: int,
    remaining_nanos: int,
    checksum: bool,
    rows: int,
    num_rows: int,
    row_bytes: int,
    row_stride: int,
) -> bytes: ...
def encode_reply(
    *,
    frame_id: int,
    batch_frames: int,
    timings: tuple[int, int, int, int] | None,
    granted_pairs: int,
    checksum: bool,
    rows: int,
    num_rows: int,
    row_bytes: int,
    row_stride: int,
) -> bytes: ...
def decode_request(message: bytes, /) -> FrameFields | None: ...
def decode_response(message: bytes, /) -> tuple[int, ReplyFields | None] | None: ...
