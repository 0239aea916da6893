"""One safetensors file: opened by its header, read tensor by tensor, and never as another file than
was opened.
"""

import json
import math
import os
import stat
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from services.model.read_pages import give_up_read
from services.model.refusals import UnusableModel

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

LENGTH_BYTES = 8  # of the header's length, which a file begins with
MAX_HEADER_BYTES = 100_000_000
# A sample is the tensor's first, middle and last block.
SAMPLE_BLOCK_BYTES = 4096

# Of what somebody looks at while it is read: it is then still in the processor's cache.
PIECE_BYTES = 1 << 20

# Device, inode, size and time of the last write: what a file is known by.
Identity = tuple[int, int, int, int]

OnPiece = Callable[[memoryview], None]


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor stands in its file, in bytes, and what it is."""

    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file that stays open. Safe to use from several threads.

    What was replaced since is read as it was. What was written to since is not read any more:
    tensors are read into memory of their own and not mapped, so that a file which is cut short is
    an error and not the process's end. Who holds a lease on `descriptor` may do otherwise.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError when there is no such file, and ValueError when it is truncated or no
        safetensors file.
        """
        self.path = path
        # A pipe in the file's place would be waited for until somebody writes to it.
        flags = ("O_CLOEXEC", "O_NONBLOCK")
        self._file = os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
        weakref.finalize(self, os.close, self._file)
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        self._identity = _identity(status)
        self.tensors: Mapping[str, StoredTensor] = self._read_header()

    def read(self, name: str, part: int | None = None) -> torch.Tensor:
        """The tensor `name`, or the `part`-th slice of its first dimension, in memory of its own.

        Raises OSError when it cannot be read, and UnusableModel when the file has changed since it
        was opened.
        """
        stored = self.stored(name, part)
        if stored.dtype not in DTYPES:
            raise UnusableModel(f"{name} is stored as {stored.dtype}, which is not read")
        values = torch.empty(stored.end - stored.begin, dtype=torch.uint8)
        self.read_into(values.numpy().data, name, part)
        return values.view(DTYPES[stored.dtype]).reshape(stored.shape)

    def read_into(
        self,
        memory: memoryview,
        name: str,
        part: int | None = None,
        on_piece: OnPiece | None = None,
    ) -> None:
        """The same into `memory`, which has its size in bytes; `on_piece` is given each piece of it
        as it is read. Raises as `read` does.
        """
        self.read_at(self.stored(name, part).begin, memory, on_piece)

    def read_at(self, begin: int, memory: memoryview, on_piece: OnPiece | None = None) -> None:
        """What stands in the file from `begin` on. Raises as `read` does."""
        position, left = begin, memory
        while left:
            count = os.preadv(
                self._file, [left if on_piece is None else left[:PIECE_BYTES]], position
            )
            if not count:
                break  # it is shorter than it was
            if on_piece is not None:
                on_piece(left[:count])
            left, position = left[count:], position + count
        give_up_read(self._file, begin, position)
        self.check_unchanged()

    def stored(self, name: str, part: int | None = None) -> StoredTensor:
        """Where the tensor, or that slice of it, stands."""
        stored = self.tensors[name]
        if part is None:
            return stored
        size = (stored.end - stored.begin) // stored.shape[0]
        begin = stored.begin + part * size
        return StoredTensor(stored.dtype, stored.shape[1:], begin, begin + size)

    @property
    def descriptor(self) -> int:
        """The open file's, as long as this object lives."""
        return self._file

    def stamp(self) -> tuple[Identity, int]:
        """What the file is known by now, and when anything of it was changed last, in nanoseconds:
        unlike the time of the last write nobody can set that one.
        """
        status = os.fstat(self._file)
        return _identity(status), status.st_ctime_ns

    def sample(self, name: str) -> bytes:
        """A few blocks of a tensor, always the same ones; all of a small one. Raises as `read`
        does.
        """
        stored = self.tensors[name]
        size = stored.end - stored.begin
        if size <= 3 * SAMPLE_BLOCK_BYTES:
            sample = os.pread(self._file, size, stored.begin)
        else:
            last = stored.end - SAMPLE_BLOCK_BYTES
            begins = (stored.begin, (stored.begin + last) // 2, last)
            sample = b"".join([os.pread(self._file, SAMPLE_BLOCK_BYTES, begin) for begin in begins])
        self.check_unchanged()
        return sample

    def is_current(self) -> bool:
        """Whether its path still leads to this file, and nobody has written to it."""
        try:
            return _identity(os.stat(self.path)) == self._identity
        except OSError:
            return False

    def check_unchanged(self) -> None:
        """Raise UnusableModel when the file is not what was opened. Called after reading, since
        whatever is written shows in the file's time first.
        """
        if _identity(os.fstat(self._file)) != self._identity:
            raise UnusableModel(
                f"{self.path} has changed since this process opened it: put the former file back, "
                "or start it again"
            )

    def _read_header(self) -> dict[str, StoredTensor]:
        size = self._identity[2]
        if size < LENGTH_BYTES:
            raise ValueError(f"it has {size} bytes")
        length = int.from_bytes(os.pread(self._file, LENGTH_BYTES, 0), "little")
        if length > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
            raise ValueError(f"its header would have {length} bytes, the file has {size}")
        header = _parsed(os.pread(self._file, length, LENGTH_BYTES))
        self.check_unchanged()
        first = LENGTH_BYTES + length
        tensors = {
            name: _stored(name, entry, first)
            for name, entry in header.items()
            if name != "__metadata__"
        }
        end = max((tensor.end for tensor in tensors.values()), default=first)
        if end != size:
            raise ValueError(f"by its header it would have {end} bytes, it has {size}")
        return tensors


@dataclass(frozen=True)
class FilePlace:
    """Neighbouring bytes of a file."""

    file: TensorFile
    begin: int
    end: int


def _parsed(header: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(header)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    if not isinstance(entries, dict):
        raise ValueError("its header is no object")
    # JSON can write half a surrogate pair, which is in no tensor's name.
    "".join(entries).encode()
    return entries


def _stored(name: str, entry: Any, first: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its header does not say what {name} is") from error
    if (
        not all(isinstance(number, int) and number >= 0 for number in (*shape, begin, end))
        or begin > end
    ):
        raise ValueError(f"its header says of {name} what cannot be")
    if dtype in DTYPES and math.prod(shape) * DTYPES[dtype].itemsize != end - begin:
        raise ValueError(f"{name} is {dtype} {list(shape)} in {end - begin} bytes")
    return StoredTensor(str(dtype), shape, first + begin, first + end)


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
