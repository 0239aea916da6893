"""Which files of a folder hold the model: those that transformers' `from_pretrained` would load."""

import logging
from collections.abc import Collection
from pathlib import Path, PurePath

from services.metadata.fields import Fields
from services.model.refusals import UnusableModel

logger = logging.getLogger(__name__)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
INDEX_SUFFIX = ".safetensors.index.json"
# Of files that may hold weights, in this format or in another.
WEIGHT_SUFFIXES = (
    ".safetensors",
    INDEX_SUFFIX,
    ".bin",
    ".gguf",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".npz",
)
MAX_NAMED = 5


def weight_files(directory: Path, stated: str | None = None) -> list[str]:
    """The safetensors files to read, in this order: a tensor that several hold is the last one's.

    They are the one that is `stated` in the configuration, else the single file, else those that
    the index names, all that is in them. What else may be taken for the model is warned of. Raises
    UnusableModel that names what is there where none of them is.
    """
    if stated is None:
        found = next(
            (name for name in (SINGLE_FILE, INDEX_FILE) if (directory / name).is_file()), None
        )
        if found is None:
            raise UnusableModel(
                f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}; only safetensors are "
                "read, and of these only "
                f"under that name or by an index. {_what_is_there(directory)}"
            )
    else:
        _check_inside(f"{directory / 'config.json'}: transformers_weights", stated)
        found = stated
    files = _indexed(directory / found) if found.endswith(INDEX_SUFFIX) else [found]
    _warn_of_others(directory, {found, *files})
    return files


def _indexed(index: Path) -> list[str]:
    fields = Fields.read(index)
    files = fields.inner("weight_map").values.values()
    if not files or not all(isinstance(file, str) for file in files):
        raise UnusableModel(
            f"{index} is not an index of weights: its weight_map has to name a file for each tensor"
        )
    for file in files:
        _check_inside(str(index), file)
    return sorted(set(files))


def _check_inside(source: str, file: str) -> None:
    path = PurePath(file)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise UnusableModel(f"{source} names a file outside its directory: {file[:100]}")


def _warn_of_others(directory: Path, read: Collection[str]) -> None:
    """Of the model's other shards, its index, its variants and an adapter."""
    there = (
        name
        for name in _weights_there(directory)
        if name.startswith("model") and ".safetensors" in name
    )
    others = [name for name in there if name not in read]
    if others:
        logger.warning(
            "%s: %s read, left aside: %s", directory, _listed(sorted(read)), _listed(others)
        )
    if (directory / "adapter_config.json").is_file():
        logger.warning("%s holds an adapter, too; the model is served without it", directory)


def _what_is_there(directory: Path) -> str:
    there = [f"{name}{_if_no_file(directory / name)}" for name in _weights_there(directory)]
    return (
        f"What is there: {_listed(there)}"
        if there
        else "There are no weights in any other format either"
    )


def _if_no_file(path: Path) -> str:
    if path.is_dir():
        return " (a folder)"
    # As an interrupted download leaves it.
    return "" if path.exists() else " (a link to a file that is not there)"


def _weights_there(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(WEIGHT_SUFFIXES))


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"
