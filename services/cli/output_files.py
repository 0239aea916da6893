"""Files that a command is to write: told early whether it can, and written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def complaint_of(file: Path) -> str | None:
    """Why the file cannot be written, as far as that can be known before there is anything to
    write.
    """
    if file.is_dir():
        return f"{file} cannot be written: it is a directory"
    try:
        folder = file.absolute().parent
    except OSError:
        return f"{file} cannot be written: the working directory does not exist any more"
    place = file if _is_written_to_directly(file) else folder
    return (
        None
        if os.access(place, os.W_OK)
        else f"{file} cannot be written: nothing can be written into {place}"
    )


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the file's place when the block ends well; else the file is
    what it was.

    What is no regular file, such as /dev/stdout or a pipe, is written to directly.
    """
    if _is_written_to_directly(file):
        yield file
        return
    target = Path(os.path.realpath(file))  # a link stays one
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _is_written_to_directly(file: Path) -> bool:
    return file.exists() and not file.is_file()
