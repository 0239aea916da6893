"""The safetensors files of a checkpoint: what is in them, and reading no more of it than is asked for."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from services.model.refusals import UnusableModel

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


@dataclass(frozen=True)
class TensorInfo:
    """What a file's header says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # as safetensors names it: F32, BF16, F8_E4M3, U8, …
    file: str


class TensorFiles:
    """The tensors of one checkpoint, over all its files.

    Files stay mapped: opening reads the headers only, and a tensor's bytes are read when they are copied. Safe to use
    from several threads.
    """

    def __init__(self, infos: dict[str, TensorInfo], handles: dict[str, Any]) -> None:
        self._infos = infos
        self._handles = handles

    @classmethod
    def open(cls, directory: Path) -> "TensorFiles":
        """Read the headers of a single file, or of the shards that an index names.

        Raises UnusableModel naming the file that is missing, truncated or corrupt.
        """
        index = directory / INDEX_FILE
        if index.exists():
            return cls._of_shards(directory, _weight_map(index))
        if not (directory / SINGLE_FILE).exists():
            raise UnusableModel(f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}; only safetensors are read")
        handle = _open(directory / SINGLE_FILE)
        return cls(_infos(handle, SINGLE_FILE), {SINGLE_FILE: handle})

    @classmethod
    def _of_shards(cls, directory: Path, weight_map: dict[str, str]) -> "TensorFiles":
        handles = {file: _open(directory / file) for file in sorted(set(weight_map.values()))}
        infos: dict[str, TensorInfo] = {}
        for file, handle in handles.items():
            infos |= _infos(handle, file)
        for name, file in weight_map.items():
            if name not in infos:
                raise UnusableModel(f"{directory / file} lacks the tensor {name}, which {INDEX_FILE} says is there")
        return cls(infos, handles)

    @property
    def infos(self) -> Collection[TensorInfo]:
        """What the headers say, one for each tensor."""
        return self._infos.values()

    def info(self, name: str) -> TensorInfo:
        """What the header says of the tensor `name`."""
        return self._infos[name]

    def read(self, name: str, part: int | None = None) -> torch.Tensor:
        """The tensor `name`, or the `part`-th slice of its first dimension, as a view of the mapped file.

        Copy the view before you keep it or write to it.
        """
        file = self._infos[name].file
        try:
            if part is None:
                tensor: torch.Tensor = self._handles[file].get_tensor(name)
            else:
                tensor = self._handles[file].get_slice(name)[part]
        except (SafetensorError, OSError) as error:
            raise UnusableModel(f"{name} cannot be read from {file}: {error}") from error
        return tensor


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError:
        raise UnusableModel(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise UnusableModel(f"{path} is truncated or no safetensors file: {error}") from error


def _infos(handle: Any, file: str) -> dict[str, TensorInfo]:
    infos = {}
    for name in handle.keys():  # noqa: SIM118 -- a file handle, not a dict
        header = handle.get_slice(name)
        infos[name] = TensorInfo(name, tuple(header.get_shape()), header.get_dtype(), file)
    return infos


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        files = {name: str(file) for name, file in weight_map.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnusableModel(f"{index} is not an index of weights: {error!r}") from error
    for file in files.values():
        if Path(file).name != file:
            raise UnusableModel(f"{index} names a file outside its directory: {file}")
    return files
