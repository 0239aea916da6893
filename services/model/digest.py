"""Names for contents: of a checkpoint by its headers, of an expert by its bytes."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from services.model.tensor_files import TensorInfo

DIGEST_BYTES = 16


def checkpoint_digest(fields: dict[str, Any], tensors: Iterable[TensorInfo]) -> str:
    """BLAKE2b-128, in hex, over the configuration and every tensor's name, type and shape, not over the sharding."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
    for info in sorted(tensors, key=lambda info: info.name):
        digest.update(f"\n{info.name} {info.dtype} {list(info.shape)}".encode())
    return digest.hexdigest()


class ContentHash:
    """BLAKE2b-128 over the tensors of one expert, each under its name within the expert.

    A parameter that is stored in several parts, as gate and up projection mostly are, hashes as if it were stored in
    one: the hash names the weights, not the layout of the files.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, label: str, parts: Sequence[torch.Tensor]) -> None:
        """Add a tensor that is stacked from `parts` along their first dimension."""
        size = sum(part.numel() for part in parts)
        self._hash.update(f"{label} {parts[0].dtype} {size}\n".encode())
        for part in parts:
            self._hash.update(_bytes(part))

    def value(self) -> bytes:
        """The hash of what was added so far."""
        return self._hash.digest()


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
