"""Names for contents: of a checkpoint by its headers and samples of its bytes, of an expert by all
of its bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import torch

from services.model.tensor_files import TensorFiles

DIGEST_BYTES = 16
# Samples are asked for side by side: a store behind a network takes its time for each, whatever the
# size.
NUM_SAMPLERS = 16
TENSORS_AT_ONCE = 64


def checkpoint_digest(fields: dict[str, Any], files: TensorFiles) -> str:
    """BLAKE2b-128, in hex, over the configuration and each tensor's name, type, shape and sample,
    not the sharding.

    Any training changes it, though few bytes are read. Raises UnusableModel when a tensor cannot be
    read.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
    samples = _sample_hashes(files)
    for info in sorted(files.infos, key=lambda info: info.name):
        digest.update(f"\n{info.name} {info.dtype} {list(info.shape)} ".encode())
        digest.update(samples[info.name])
    return digest.hexdigest()


def _sample_hashes(files: TensorFiles) -> dict[str, bytes]:
    names = [info.name for info in files.infos]
    groups = [
        names[first : first + TENSORS_AT_ONCE] for first in range(0, len(names), TENSORS_AT_ONCE)
    ]

    def hashes(group: list[str]) -> list[bytes]:
        return [
            hashlib.blake2b(files.sample(name), digest_size=DIGEST_BYTES).digest() for name in group
        ]

    with ThreadPoolExecutor(NUM_SAMPLERS, "sample-tensors") as samplers:
        return dict(zip(names, chain.from_iterable(samplers.map(hashes, groups)), strict=True))


class ContentHash:
    """BLAKE2b-128 over tensors, of one expert or of the trunk, each under its name within that.

    A parameter that is stored in several parts, as gate and up projection mostly are, hashes as if
    it were stored in one: the hash names the weights, not the layout of the files.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, name: str, stored: Sequence[tuple[torch.Tensor, ...]]) -> None:
        """Add a weight that is stacked along its first dimension from parts, each its values and,
        maybe, scales.
        """
        for role, parts in zip(("values", "scales"), zip(*stored, strict=True), strict=False):
            self.begin(name, role, parts[0].dtype, sum(part.numel() for part in parts))
            for part in parts:
                self.update(_bytes(part))

    def begin(self, name: str, role: str, dtype: torch.dtype, num_values: int) -> None:
        """What comes now are a weight's values or scales, so many of them."""
        self._hash.update(f"{name} {role} {dtype} {num_values}\n".encode())

    def update(self, values: Any) -> None:
        """Add bytes of what was begun."""
        self._hash.update(values)

    def value(self) -> bytes:
        """The hash of what was added so far."""
        return self._hash.digest()


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
