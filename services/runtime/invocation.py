"""How the command is to be typed again, as far as it can tell from how it was started."""

import os
import shlex
import shutil
import sys
from pathlib import Path

COMMAND = "moesaic"


def typed(line: str) -> str:
    """A line with `moesaic …` in it as it works where this process was started.

    That is by the path that was typed there, unless the shell finds the command by its name alone.
    """
    started = sys.argv[0]
    if Path(started).name != COMMAND or _is_found_as(started):
        return line
    return line.replace(f"{COMMAND} ", f"{shlex.quote(started)} ")


def _is_found_as(started: str) -> bool:
    found = shutil.which(COMMAND)
    try:
        return found is not None and os.path.samefile(found, started)
    except OSError:
        return False
