"""What a process tells whoever started it, once it serves: its port, and what its start
warned of.
"""

import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress

MAX_WARNINGS = 8
MAX_CHARACTERS = 500
# The loggers of what reads the checkpoint: what they warn of stays, while others warn of states
# that pass.
SOURCES = (
    "services.metadata.",
    "services.model.",
    "services.gateway.checkpoint",
    "services.router.assembly",
)


class Announcement(logging.Handler):
    """Collects what is warned of the checkpoint until `send`; then it is off the root logger."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(logging.WARNING)
        self._descriptor = descriptor
        self._warnings: list[str] = []
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(SOURCES) and len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(" ".join(record.getMessage().split())[:MAX_CHARACTERS])

    def send(self, port: int) -> None:
        """Write a line, `ready PORT` and behind it a JSON list of warnings if there are any; close
        the descriptor.
        """
        logging.getLogger().removeHandler(self)
        warnings = f" {json.dumps(self._warnings)}" if self._warnings else ""
        with suppress(BrokenPipeError):  # whoever wanted to know has left
            os.write(self._descriptor, f"ready {port}{warnings}\n".encode())
        os.close(self._descriptor)


def announced_warnings(line: bytes) -> Sequence[str] | None:
    """The warnings of an announcement; None where the line is none."""
    word, _, details = line.decode(errors="replace").strip().partition(" ")
    if word != "ready":
        return None
    warnings: list[str] = json.loads(details.partition(" ")[2] or "[]")
    return warnings
