"""How fast this machine reads when it does nothing else: memory, and files of a checkpoint."""

import json
import os
import struct
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.runtime.cores import num_cores

# Far beyond what caches hold.
MEMORY_BYTES_A_THREAD = 256 << 20
NUM_MEMORY_READS = 5
PIECE_BYTES = 16 << 20
HEADER_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Piece:
    """Neighbouring bytes of a file."""

    path: Path
    begin: int
    end: int


def memory_rate() -> float:
    """Bytes a second that all cores together read from memory: the best of some times."""
    count = num_cores()
    buffers = [np.ones(MEMORY_BYTES_A_THREAD // 8, dtype=np.uint64) for _ in range(count)]
    best = 0.0
    with ThreadPoolExecutor(count) as threads:
        for _ in range(NUM_MEMORY_READS):
            began = time.perf_counter()
            list(threads.map(np.bitwise_xor.reduce, buffers))
            rate = count * MEMORY_BYTES_A_THREAD / (time.perf_counter() - began)
            best = max(best, rate)
    return best


def seconds_to_read(pieces: Sequence[Piece]) -> float:
    """Seconds that all cores take to read the pieces, the second time, when the page cache has what
    it has room for.
    """
    _read(pieces)
    began = time.perf_counter()
    _read(pieces)
    return time.perf_counter() - began


def whole_files(folder: Path) -> list[Piece]:
    """All weights of a checkpoint."""
    return [Piece(path, 0, path.stat().st_size) for path in sorted(folder.glob("*.safetensors"))]


def experts_of(folder: Path, keys: Iterable[tuple[int, int]]) -> list[Piece]:
    """Where the experts stand, which are given as layer and number."""
    prefixes = {f"model.layers.{layer}.mlp.experts.{expert}." for layer, expert in keys}
    return [
        piece
        for path in sorted(folder.glob("*.safetensors"))
        for name, piece in _tensors(path)
        if name[: name.find(".", name.find(".experts.") + len(".experts.")) + 1] in prefixes
    ]


def _tensors(path: Path) -> list[tuple[str, Piece]]:
    with path.open("rb") as file:
        (length,) = HEADER_LENGTH.unpack(file.read(HEADER_LENGTH.size))
        header = json.loads(file.read(length))
    first = HEADER_LENGTH.size + length
    return [
        (name, Piece(path, first + about["data_offsets"][0], first + about["data_offsets"][1]))
        for name, about in header.items()
        if name != "__metadata__"
    ]


def _read(pieces: Sequence[Piece]) -> None:
    count = num_cores()
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(_read_all, [pieces[number::count] for number in range(count)]))


def _read_all(pieces: Sequence[Piece]) -> None:
    buffer = memoryview(bytearray(PIECE_BYTES))
    for piece in pieces:
        file = os.open(piece.path, os.O_RDONLY)
        try:
            at = piece.begin
            while at < piece.end:
                at += os.preadv(file, [buffer[: min(PIECE_BYTES, piece.end - at)]], at) or piece.end
        finally:
            os.close(file)
