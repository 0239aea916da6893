"""What a process that computes needs around it, told before torch fails in words of its own."""

import os
import sys

from services.wire.errors import BadState


def refuse_surroundings() -> None:
    """Raise BadState, saying what to change, where torch or transformers cannot be loaded."""
    try:
        os.getcwd()
    except OSError as error:
        raise BadState(
            "the working directory does not exist any more, and torch cannot be loaded without "
            "one: change into another"
        ) from error
    if sys.flags.optimize > 1:
        raise BadState(
            "Python was told to leave out docstrings (PYTHONOPTIMIZE=2 or -OO), which "
            "transformers reads: use 1 or -O"
        )
