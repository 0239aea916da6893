"""What memory services have taken that is theirs alone, and what the machine has left."""

from dataclasses import dataclass
from pathlib import Path

from bench.harness.failure import BenchFailed
from bench.rig.kernel import fields_of


@dataclass(frozen=True)
class Taken:
    """Bytes of an expert service at some moment: anonymous ones, and those of its experts."""

    moment: str
    service: str
    anonymous_bytes: int
    expert_bytes: int

    @property
    def ratio(self) -> float:
        """Anonymous bytes over those of its experts."""
        return self.anonymous_bytes / self.expert_bytes

    @property
    def over_bytes(self) -> int:
        """Anonymous bytes that are not its experts'."""
        return self.anonymous_bytes - self.expert_bytes


def anonymous_bytes(pid: int) -> int:
    """Memory of a process that no file stands behind; Linux only."""
    return fields_of(Path(f"/proc/{pid}/smaps_rollup").read_text())["Anonymous"]


def require_memory(num_bytes: int, what: str) -> None:
    """Raise BenchFailed where the machine has not so much left for it."""
    left = fields_of(Path("/proc/meminfo").read_text())["MemAvailable"]
    if left < num_bytes:
        raise BenchFailed(
            f"{what} takes about {num_bytes / 1e9:.1f} GB of memory; {left / 1e9:.1f} GB are left"
        )
