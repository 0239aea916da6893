"""Messages with one frame or one reply, as protobuf has them: written in one allocation, read
without copying rows.

Only what is laid out in the usual way is read: each field once at most, none that is not known,
arrays whole, the checksum right where there is one, and of replies neither failures nor an error.
"""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from services import kernels

try:
    from services.wire.native import _codec as _codec
except ImportError:  # no compiler was there at install time
    _codec = None  # type: ignore[assignment]

# Where the kernels are off, so is this.
AVAILABLE = kernels.AVAILABLE and _codec is not None

# frame_id, layer, dtype's number, num_rows, rows, pair_rows, pair_experts, pair_weights,
# remaining_nanos, traceparent, requests, and whether there is a checksum.
FrameFields: TypeAlias = tuple[
    int, int, int, int, memoryview, bytes, bytes, bytes, int, str, tuple[int, ...], bool
]
# frame_id, rows, timings, batch_frames, and whether there is a checksum.
ReplyFields: TypeAlias = tuple[int, memoryview, tuple[int, int, int, int], int, bool]

# Address, rows, bytes of a row, and from one to the next.
_NO_ROWS = (0, 0, 0, 0)


def encode_frame(
    rows: torch.Tensor,
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
) -> bytes:
    """A DispatchRequest with a frame of `rows` [rows, width], or of those with `row_indices` in
    their order.

    Rows are of any dtype. Raises ValueError for rows that are not on the CPU and arrays of another
    kind, IndexError for a row that is not there, OverflowError for a number that its field does not
    hold.
    """
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    address, num_rows, row_bytes, row_stride = _laid_out(rows)
    return _codec.encode_frame(
        row_indices=row_indices,
        pair_rows=pair_rows,
        pair_experts=pair_experts,
        pair_weights=pair_weights,
        requests=requests,
        traceparent=traceparent,
        frame_id=frame_id,
        layer=layer,
        element_type=element_type,
        remaining_nanos=remaining_nanos,
        checksum=checksum,
        rows=address,
        num_rows=num_rows,
        row_bytes=row_bytes,
        row_stride=row_stride,
    )


def encode_reply(
    rows: torch.Tensor | None,
    frame_id: int,
    batch_frames: int,
    timings: tuple[int, int, int, int] | None,
    granted_pairs: int,
    checksum: bool,
) -> bytes:
    """A DispatchResponse with a reply of `rows` [rows, width]; raises as `encode_frame`."""
    if rows is not None and rows.stride(1) != 1:
        rows = rows.contiguous()
    address, num_rows, row_bytes, row_stride = _NO_ROWS if rows is None else _laid_out(rows)
    return _codec.encode_reply(
        frame_id=frame_id,
        batch_frames=batch_frames,
        timings=timings,
        granted_pairs=granted_pairs,
        checksum=checksum,
        rows=address,
        num_rows=num_rows,
        row_bytes=row_bytes,
        row_stride=row_stride,
    )


def decode_request(message: bytes) -> FrameFields | None:
    """The fields of a DispatchRequest's frame, whose rows still lie in the message; None for an
    unusual one.
    """
    return _codec.decode_request(message)


def decode_response(message: bytes) -> tuple[int, ReplyFields | None] | None:
    """`granted_pairs` and the fields of a DispatchResponse's reply, if it has one; None for an
    unusual message.
    """
    return _codec.decode_response(message)


def _laid_out(rows: torch.Tensor) -> tuple[int, int, int, int]:
    if not rows.is_cpu:
        raise ValueError("rows must be on the CPU")
    num_rows, width = rows.shape
    item = rows.itemsize
    return rows.data_ptr(), num_rows, width * item, rows.stride(0) * item
