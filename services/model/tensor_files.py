"""The safetensors files of a checkpoint: what is in them, and reading no more of it than is asked
for.
"""

import logging
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from services.model.origin import Origin
from services.model.refusals import UnusableModel
from services.model.tensor_file import FilePlace, OnPiece, TensorFile
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

    Files stay open: opening reads the headers only. Safe to use from several threads.
    """

    def __init__(self, infos: dict[str, TensorInfo], handles: dict[str, TensorFile]) -> None:
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
                logger.warning(
                    "%s has %d tensors of files before it, and counts: %s",
                    file,
                    len(again),
                    min(again),
                )
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
        """The tensor `name`, or the `part`-th slice of its first dimension, in memory of its own.

        Raises UnusableModel when it cannot be read, or the file has changed since it was opened.
        """
        file = self._infos[name].file
        with _named(name, file):
            return self._handles[file].read(name, part)

    def read_into(
        self,
        memory: memoryview,
        name: str,
        part: int | None = None,
        on_piece: OnPiece | None = None,
    ) -> None:
        """The same into memory of its size; `on_piece` is given each piece of it as it is read."""
        file = self._infos[name].file
        with _named(name, file):
            self._handles[file].read_into(memory, name, part, on_piece)

    def place(self, name: str, part: int | None = None) -> FilePlace:
        """Where the tensor, or that slice of it, stands."""
        handle = self._handles[self._infos[name].file]
        stored = handle.stored(name, part)
        return FilePlace(handle, stored.begin, stored.end)

    def origin(self, tensors: Iterable[tuple[str, int | None]]) -> Origin:
        """Where tensors, or those slices of them, stand in which files, as these are now.

        Raises as `read` does.
        """
        places, changed_nanos, seen_nanos = [], 0, time.time_ns()
        for name, part in tensors:
            file = self._infos[name].file
            with _named(name, file):
                identity, changed = self._handles[file].stamp()
            places.append((identity, changed, self._handles[file].stored(name, part)))
            changed_nanos = max(changed_nanos, changed)
        return Origin.of(repr(places), changed_nanos, seen_nanos)

    def sample(self, name: str) -> bytes:
        """A few blocks of the tensor `name`, always the same ones. Raises as `read` does."""
        file = self._infos[name].file
        with _named(name, file):
            return self._handles[file].sample(name)

    def reopen_changed(self) -> "TensorFiles | None":
        """The same tensors in the files as they are now; None where no file was replaced or written
        to.

        Raises UnusableModel when one cannot be used, or has other tensors.
        """
        stale = {file: handle for file, handle in self._handles.items() if not handle.is_current()}
        fresh = {file: _open(handle.path) for file, handle in stale.items()}
        for file, handle in fresh.items():
            if _infos(handle, file) != _infos(stale[file], file):
                raise UnusableModel(
                    f"{handle.path} has other tensors than when this process opened it"
                )
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
    return {
        name: TensorInfo(name, stored.shape, stored.dtype, file)
        for name, stored in handle.tensors.items()
    }
