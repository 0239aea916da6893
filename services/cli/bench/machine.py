"""What the figures were measured on."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """The machine that the client runs on; with a cluster of its own, that too."""

    processor: str
    cores: int
    load: float
    python: str
    grpcio: str
    moesaic: str

    @classmethod
    def here(cls) -> "Machine":
        """This one, with its load average of the last minute."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        load = round(os.getloadavg()[0], 2)
        return cls(_processor(), cores, load, platform.python_version(), version("grpcio"), version("moesaic"))

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        cores = f"{self.cores} core" + ("s" if self.cores != 1 else "")
        return f"{self.processor}, {cores}, load {self.load:g}, Python {self.python}, grpcio {self.grpcio}"


def _processor() -> str:
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
