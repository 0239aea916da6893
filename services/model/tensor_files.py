"""The safetensors files of a checkpoint: what is in them, and reading no more of it than is asked for."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from services.model.refusals import UnusableModel
from services.model.tensor_file import TensorFile

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

    Files stay open: opening reads the headers only. Safe to use from several threads.
    """

    def __init__(self, infos: dict[str, TensorInfo], handles: dict[str, TensorFile]) -> None:
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
        """The tensor `name`, or the `part`-th slice of its first dimension, in memory of its own.

        Raises UnusableModel when it cannot be read, or the file has changed since it was opened.
        """
        file = self._infos[name].file
        with _named(name, file):
            return self._handles[file].read(name, part)

    def sample(self, name: str) -> bytes:
        """A few blocks of the tensor `name`, always the same ones. Raises as `read` does."""
        file = self._infos[name].file
        with _named(name, file):
            return self._handles[file].sample(name)

    def refreshed(self) -> "TensorFiles | None":
        """The same tensors in the files as they are now; None where no file was replaced or written to.

        Raises UnusableModel when one cannot be used, or has other tensors.
        """
        stale = {file: handle for file, handle in self._handles.items() if not handle.is_current()}
        fresh = {file: _open(handle.path) for file, handle in stale.items()}
        for file, handle in fresh.items():
            if _infos(handle, file) != _infos(stale[file], file):
                raise UnusableModel(f"{handle.path} has other tensors than when this process opened it")
        return TensorFiles(self._infos, self._handles | fresh) if fresh else None


@contextmanager
def _named(name: str, file: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnusableModel(f"{name} cannot be read from {file}: {error}") from error


def _open(path: Path) -> TensorFile:
    try:
        return TensorFile(path)
    except FileNotFoundError:
        raise UnusableModel(f"{path} is missing") from None
    except (ValueError, OSError) as error:
        raise UnusableModel(f"{path} is truncated or no safetensors file: {error}") from error


def _infos(handle: TensorFile, file: str) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, stored.shape, stored.dtype, file) for name, stored in handle.tensors.items()}


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
