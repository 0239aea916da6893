"""The safetensors files of a checkpoint: what is in them, and reading no more of it than is asked for."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from services.model.refusals import UnusableModel
from services.model.weight_files import weight_files

logger = logging.getLogger(__name__)


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
    def open(cls, directory: Path, stated: str | None = None) -> "TensorFiles":
        """Read the headers of the files that `weight_files`, which see, finds.

        Raises UnusableModel naming the file that is missing, truncated or corrupt.
        """
        handles = {file: _open(directory / file) for file in weight_files(directory, stated)}
        infos: dict[str, TensorInfo] = {}
        for file, handle in handles.items():
            more = _infos(handle, file)
            again = more.keys() & infos.keys()
            if again:
                logger.warning("%s has %d tensors of files before it, and counts: %s", file, len(again), min(again))
            infos |= more
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
