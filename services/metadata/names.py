"""What a model is called where nobody says it."""

import os
from pathlib import Path

# of a repository's folder in Hugging Face's cache: models--ORG--NAME/snapshots/COMMIT
CACHE_PREFIX = "models--"


def model_name(directory: Path) -> str:
    """The name of the checkpoint in `directory`: its repository's in Hugging Face's cache, else the
    folder's own.

    A link has the name of what it leads to, as `.` has.
    """
    resolved = directory.resolve()
    for path in (Path(os.path.abspath(directory)), resolved):
        if path.parent.name == "snapshots" and path.parents[1].name.startswith(CACHE_PREFIX):
            return _sendable(path.parents[1].name.removeprefix(CACHE_PREFIX).rpartition("--")[2])
    return _sendable(resolved.name) or str(resolved)


def _sendable(name: str) -> str:
    """Without what is no UTF-8, as names of files may be."""
    return name.encode(errors="replace").decode()
