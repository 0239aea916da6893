"""Rows as the bytes that travel, and back, without a copy where none is needed."""

import warnings

import numpy as np
import numpy.typing as npt
import torch

from services import kernels
from services.wire.checksum import CHECKSUM_BYTES, ChecksumField
from services.wire.payload import header

FRAME_OR_REPLY = 1  # DispatchRequest.frame and DispatchResponse.reply
ROWS = 15  # Frame.rows and FrameReply.rows

with warnings.catch_warnings():
    # torch warns once in a process's life that received bytes are not writable; nothing here writes to them.
    warnings.filterwarnings("ignore", message="The given buffer is not writable")
    torch.frombuffer(b"\0", dtype=torch.uint8)


def type_name(dtype: torch.dtype) -> str:
    """The type of elements as people are told of it, such as `float32`."""
    return str(dtype).removeprefix("torch.")


def wrapped(
    head: bytes,
    rows: torch.Tensor | None,
    indices: npt.NDArray[np.int64] | None = None,
    after: bytes = b"",
    checksum: ChecksumField | None = None,
) -> bytes:
    """The message whose frame or reply has the fields `head`, the `checksum` and the bytes of `rows` [rows, width], of
    those with `indices` where given; its fields `after` come last. `rows` is in the host's memory.
    """
    num_rows = 0 if rows is None else len(rows) if indices is None else len(indices)
    if rows is None or not num_rows:
        head += b"" if checksum is None else checksum.with_rows(b"")
        return header(FRAME_OR_REPLY, len(head)) + head + after
    num_bytes = num_rows * rows.shape[1] * rows.itemsize
    rows_header = header(ROWS, num_bytes)
    num_checksum = 0 if checksum is None else len(checksum.tag) + CHECKSUM_BYTES
    start = header(FRAME_OR_REPLY, len(head) + num_checksum + len(rows_header) + num_bytes) + head
    if kernels.AVAILABLE and rows.stride(1) == 1:
        if checksum is None:
            return kernels.joined(start + rows_header, rows, indices, after)
        if kernels.CHECKSUMS:
            prefix = b"".join((start, checksum.tag, bytes(CHECKSUM_BYTES), rows_header))
            place = len(start) + len(checksum.tag)
            return kernels.joined(prefix, rows, indices, after, checksum_at=place, checksum=checksum.of_head)
    if indices is not None:
        rows = rows.index_select(0, torch.from_numpy(indices))
    # bfloat16 is no type of numpy's, so the elements travel as the bytes that they are.
    data = rows.detach().contiguous().view(torch.uint8).numpy().data
    return b"".join([start, b"" if checksum is None else checksum.with_rows(data), rows_header, data, after])


def rows_of(data: memoryview, dtype: torch.dtype, hidden_size: int) -> torch.Tensor:
    """View bytes of whole rows as [rows, hidden_size]; never write to it."""
    if not data:
        return torch.empty(0, hidden_size, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(-1, hidden_size)
