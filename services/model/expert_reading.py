"""One expert of a checkpoint read to where it is computed with, and hashed on the way where its
hash is not known; or hashed alone.
"""

from collections.abc import Mapping

import torch

from services.model.digest import ContentHash
from services.model.encodings import Encoding, StoredWeight
from services.model.expert_sources import ExpertParameter
from services.model.hash_cache import HashCache
from services.model.tensor_file import DTYPES
from services.model.tensor_files import TensorFiles

Parts = list[tuple[StoredWeight, int | None]]


@torch.no_grad()
def read_expert_into(
    parameters: Mapping[str, torch.Tensor],
    expert: int,
    sources: Mapping[str, ExpertParameter],
    files: TensorFiles,
    hashes: HashCache | None = None,
) -> bytes:
    """Fill an expert's parameters from the files; the content hash of the very bytes.

    What is stored in the parameter's own type is read into its memory without a copy between; all
    else is decoded. A hash that `hashes` has for these places in these files as they are is taken
    from there. Raises UnusableModel when the files cannot be read, or have changed.
    """
    parts = _parts(sources, expert)
    remembered = _Remembered(parts, files, hashes)
    if remembered.known is not None:
        _read(parameters, parts, files, None)
        if remembered.is_as_before():
            return remembered.known
    content = ContentHash()
    _read(parameters, parts, files, content)
    return remembered.keep(content.value())


def hash_expert(
    expert: int,
    sources: Mapping[str, ExpertParameter],
    files: TensorFiles,
    hashes: HashCache | None = None,
) -> bytes:
    """An expert's content hash. It is taken from `hashes`, and kept there, as by
    `read_expert_into`; else the expert is read, weight by weight. Raises as that does.
    """
    parts = _parts(sources, expert)
    remembered = _Remembered(parts, files, hashes)
    if remembered.known is not None:
        return remembered.known
    content = ContentHash()
    for name, located in parts.items():
        content.add(name, [weight.read(files, index) for weight, index in located])
    return remembered.keep(content.value())


class _Remembered:
    """What `hashes` has for an expert's places in the files as they are: a hash that is `known`."""

    def __init__(
        self, parts: Mapping[str, Parts], files: TensorFiles, hashes: HashCache | None
    ) -> None:
        self._files = files
        self._hashes = hashes
        self._tensors = _tensors(parts)
        self._before = files.origin(self._tensors) if hashes is not None else None
        self.known: bytes | None = None
        if hashes is not None and self._before is not None:
            self.known = hashes.find(self._before)

    def is_as_before(self) -> bool:
        """Whether the files are still those that were looked at."""
        return self._files.origin(self._tensors) == self._before

    def keep(self, content_hash: bytes) -> bytes:
        """Remember the hash of what was read, unless the files have changed meanwhile; the same."""
        if self._hashes is not None and self._before is not None and self.is_as_before():
            self._hashes.keep(self._before, content_hash)
        return content_hash


def _parts(sources: Mapping[str, ExpertParameter], expert: int) -> dict[str, Parts]:
    return {name: sources[name].locate(expert) for name in sorted(sources)}


def _tensors(parts: Mapping[str, Parts]) -> list[tuple[str, int | None]]:
    return [
        (tensor, index)
        for located in parts.values()
        for weight, index in located
        for tensor in weight.tensors
    ]


def _read(
    parameters: Mapping[str, torch.Tensor],
    parts: Mapping[str, Parts],
    files: TensorFiles,
    content: ContentHash | None,
) -> None:
    for name, located in parts.items():
        parameter = parameters[name]
        if _can_be_read_there(parameter, located, files):
            _read_there(name, parameter, located, files, content)
        else:
            _decode_there(name, parameter, located, files, content)


def _can_be_read_there(parameter: torch.Tensor, located: Parts, files: TensorFiles) -> bool:
    return (
        parameter.is_cpu
        and parameter.is_contiguous()
        and all(
            weight.encoding is Encoding.PLAIN
            and DTYPES[files.info(weight.tensors[0]).dtype] is parameter.dtype
            for weight, _ in located
        )
    )


def _read_there(
    name: str,
    parameter: torch.Tensor,
    located: Parts,
    files: TensorFiles,
    content: ContentHash | None,
) -> None:
    memory = parameter.detach().reshape(-1).view(torch.uint8).numpy().data
    size = len(memory) // len(located)
    if content is not None:
        content.begin(name, "values", parameter.dtype, parameter.numel())
    for number, (weight, index) in enumerate(located):
        files.read_into(
            memory[number * size : (number + 1) * size],
            weight.tensors[0],
            index,
            None if content is None else content.update,
        )


def _decode_there(
    name: str,
    parameter: torch.Tensor,
    located: Parts,
    files: TensorFiles,
    content: ContentHash | None,
) -> None:
    stored = [(weight, weight.read(files, index)) for weight, index in located]
    if content is not None:
        content.add(name, [tensors for _, tensors in stored])
    values = [weight.decode(tensors, parameter.dtype) for weight, tensors in stored]
    parameter.copy_(values[0] if len(values) == 1 else torch.cat(values))
