"""What figures were measured on, so that they can be read years later."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from services.runtime.cores import num_cores

CPU_INFO = Path("/proc/cpuinfo")
PACKAGES = ("moesaic", "grpcio")


@dataclass(frozen=True)
class Machine:
    """A machine, its load average of the minute before, and what runs on it: `versions` are by
    package.
    """

    processor: str
    cores: int
    load: float
    python: str
    versions: dict[str, str]

    @classmethod
    def here(cls, packages: Sequence[str] = PACKAGES) -> "Machine":
        """This one, with the versions of these packages."""
        versions = {package: version(package) for package in packages}
        return cls(
            _processor(),
            num_cores(),
            round(os.getloadavg()[0], 2),
            platform.python_version(),
            versions,
        )

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        about = {
            "processor": self.processor,
            "cores": self.cores,
            "load": self.load,
            "python": self.python,
        }
        return {**about, **self.versions}

    def __str__(self) -> str:
        cores = f"{self.cores} core" + ("s" if self.cores != 1 else "")
        versions = ", ".join(f"{package} {number}" for package, number in self.versions.items())
        return f"{self.processor}, {cores}, load {self.load:g}, Python {self.python}, {versions}"


def _processor() -> str:
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
