"""Real expert services for a bench, each a process as `moesaic expert` runs it."""

import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.processes import LOOPBACK
from services.cli.members import Member


def expert_members(model: Path, count: int, dtype: str = "auto") -> list[Member]:
    """So many services of one thread; each hosts its share of every layer from the start."""
    return [
        Member(f"expert-{index}", "expert", address, _command(model, address, f"{index}/{count}", dtype))
        for index, address in enumerate(free_addresses(count))
    ]


def free_addresses(count: int) -> list[str]:
    """Addresses of this machine that nobody listens on at the moment, all different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [f"{LOOPBACK}:{probe.getsockname()[1]}" for probe in probes]


def _command(model: Path, address: str, share: str, dtype: str) -> tuple[str, ...]:
    flags = (f"--listen={address}", f"--model={model}", f"--preload={share}", f"--dtype={dtype}")
    return (sys.executable, "-P", "-m", "services.expert", *flags, "--threads=1", "--drain-seconds=1")
