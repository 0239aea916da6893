"""A checkpoint's experts, and the two hashes of expert.proto, in plain numpy."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesaic.v1 import common_pb2

Floats = npt.NDArray[np.float32]
Key = tuple[int, int]  # layer, expert

BLOCK = 4096  # bytes of a sample
TYPES = {
    "F32": common_pb2.ELEMENT_TYPE_FLOAT32,
    "BF16": common_pb2.ELEMENT_TYPE_BFLOAT16,
}
# How content hashes name the types.
HASHED_TYPES = {"F32": "torch.float32", "BF16": "torch.bfloat16"}
EXPERT = re.compile(r"model\.layers\.(\d+)\..*experts\.(\d+)\.gate_proj\.weight")
# The parameters of an expert, sorted by name, and the tensors that each is stacked from.
PARAMETERS = {"down_proj": ("down_proj",), "gate_up_proj": ("gate_proj", "up_proj")}


class Checkpoint:
    """The tensors of a directory: read when they are asked for, never mapped."""

    def __init__(self, directory: Path) -> None:
        self.name = directory.name
        self.config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self._tensors: dict[str, tuple[Path, str, list[int], int, int]] = {}
        for path in sorted(directory.glob("*.safetensors")):
            self._tensors |= _header(path)
        named = (EXPERT.fullmatch(name) for name in self._tensors)
        found = {(int(match[1]), int(match[2])): match[0] for match in named if match}
        self.paths = {key: name.removesuffix("gate_proj.weight") for key, name in found.items()}
        self.layers = sorted({layer for layer, _ in self.paths})
        self.num_experts = 1 + max(expert for _, expert in self.paths)
        _, self.dtype, (_, self.hidden_size), *_ = self._tensors[found[min(found)]]

    def digest(self) -> str:
        """`model_digest`, as the proto says."""
        written = json.dumps(self.config, sort_keys=True, separators=(",", ":"))
        digest = hashlib.blake2b(written.encode(), digest_size=16)
        for name, (path, dtype, shape, begin, size) in sorted(self._tensors.items()):
            starts = [0] if size <= 3 * BLOCK else [0, (size - BLOCK) // 2, size - BLOCK]
            length = size if size <= 3 * BLOCK else BLOCK
            sample = b"".join(_read(path, begin + start, length) for start in starts)
            digest.update(f"\n{name} {dtype} {shape} ".encode())
            digest.update(hashlib.blake2b(sample, digest_size=16).digest())
        return digest.hexdigest()

    def read(self, key: Key) -> tuple[dict[str, Floats], bytes]:
        """An expert's projections, and its `content_hash`."""
        content, weights = hashlib.blake2b(digest_size=16), {}
        for parameter, parts in PARAMETERS.items():
            stored = {part: self._tensors[f"{self.paths[key]}{part}.weight"] for part in parts}
            data = {
                part: _read(path, begin, size) for part, (path, *_, begin, size) in stored.items()
            }
            num_values = sum(int(np.prod(shape)) for _, _, shape, _, _ in stored.values())
            content.update(f"{parameter} values {HASHED_TYPES[self.dtype]} {num_values}\n".encode())
            for part, (_, dtype, shape, _, _) in stored.items():
                content.update(data[part])
                weights[part] = floats_of(data[part], TYPES[dtype]).reshape(shape)
        return weights, content.digest()


def _header(path: Path) -> Iterator[tuple[str, tuple[Path, str, list[int], int, int]]]:
    length = int.from_bytes(_read(path, 0, 8), "little")
    for name, entry in json.loads(_read(path, 8, length)).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield name, (path, entry["dtype"], entry["shape"], 8 + length + begin, end - begin)


def _read(path: Path, begin: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read(size)
    if len(data) < size:
        raise EOFError(f"{path} was cut short")
    return data


def floats_of(data: bytes, element_type: int) -> Floats:
    """Values from their bytes, in an element type of the proto's."""
    if element_type == common_pb2.ELEMENT_TYPE_FLOAT32:
        return np.frombuffer(data, "<f4")
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def bytes_of(values: Floats, element_type: int) -> bytes:
    """The other way round."""
    if element_type == common_pb2.ELEMENT_TYPE_FLOAT32:
        return values.astype("<f4").tobytes()
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)  # rounded to even
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
