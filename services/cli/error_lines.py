"""Shows the operator what services log as errors, where their logs go to files."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

LOOK_SECONDS = 0.5
# As `services.runtime.logs` writes them: time, level, service, logger, message.
ERROR_LINE = re.compile(r"\S+Z (?:ERROR|CRITICAL) +\S+ \S+: (.*)")


class ErrorLines:
    """Reads on in every log of a folder; `report` is told of each error, by the member that logged
    it.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._report = report
        self._num_read: dict[Path, int] = {}  # bytes
        self._last_reported: dict[Path, str] = {}

    async def run(self) -> None:
        """Look again and again until cancelled, and once more then."""
        try:
            while True:
                self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self.look()

    def look(self) -> None:
        """Report the errors of whole lines that have come; the same one only once in a row."""
        for log in sorted(self._folder.glob("*.log")):
            for line in self._new_lines(log):
                match = ERROR_LINE.fullmatch(line)
                if match is not None and match[1] != self._last_reported.get(log):
                    self._last_reported[log] = match[1]
                    self._report(f"{log.stem}: {match[1]}")

    def _new_lines(self, log: Path) -> list[str]:
        with log.open("rb") as file:
            file.seek(self._num_read.get(log, 0))
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._num_read[log] = self._num_read.get(log, 0) + len(whole)
        return whole.decode(errors="replace").split("\n")
