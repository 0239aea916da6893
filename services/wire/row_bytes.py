"""Rows as the bytes that travel, and back, without a copy where none is needed."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

with warnings.catch_warnings():
    # torch warns once in a process's life that received bytes are not writable; nothing here writes
    # to them.
    warnings.filterwarnings("ignore", message="The given buffer is not writable")
    torch.frombuffer(b"\0", dtype=torch.uint8)


# Of each type the integers of its size, and the bits of its exponent: all of them are set in what
# is not finite.
_EXPONENTS: Mapping[torch.dtype, tuple[type[np.signedinteger[Any]], int]] = {
    torch.float32: (np.int32, 0x7F80_0000),
    torch.bfloat16: (np.int16, 0x7F80),
    torch.float16: (np.int16, 0x7C00),
}


def type_name(dtype: torch.dtype) -> str:
    """The type of elements as people are told of it, such as `float32`."""
    return str(dtype).removeprefix("torch.")


def bytes_of(rows: torch.Tensor, indices: npt.NDArray[np.int64] | None = None) -> bytes:
    """The bytes of `rows` [rows, width] in the host's memory, or of those with `indices` in their
    order.
    """
    if indices is not None:
        rows = rows.index_select(0, torch.from_numpy(indices))
    # bfloat16 is no type of numpy's, so the elements travel as the bytes that they are.
    return rows.detach().contiguous().view(torch.uint8).numpy().tobytes()


def rows_of(data: memoryview, dtype: torch.dtype, hidden_size: int) -> torch.Tensor:
    """View bytes of whole rows as [rows, hidden_size]; never write to it."""
    if not data:
        return torch.empty(0, hidden_size, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(-1, hidden_size)


def are_finite(rows: torch.Tensor) -> bool:
    """Whether all numbers of `rows` [rows, width] in the host's memory are finite."""
    return not rows.numel() or bool(finite_rows(rows.reshape(1, -1))[0])


def finite_rows(rows: torch.Tensor) -> npt.NDArray[np.bool_]:
    """For each of `rows` [rows, width] in the host's memory whether its numbers are all finite."""
    integers, exponent = _EXPONENTS[rows.dtype]
    bits = rows.detach().contiguous().view(torch.uint8).numpy().view(integers)
    largest = np.bitwise_and(bits, integers(exponent)).max(axis=-1, initial=0)
    finite: npt.NDArray[np.bool_] = largest != exponent
    return finite
