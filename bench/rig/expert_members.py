"""Real expert services for a bench, each a process as `moesaic expert` runs it."""

from pathlib import Path

from services.cli.members import Member, free_addresses


def expert_members(model: Path, count: int, dtype: str = "auto") -> list[Member]:
    """So many services of one thread; each hosts its share of every layer from the start."""
    flags = (f"--model={model}", f"--dtype={dtype}", "--threads=1", "--drain-seconds=1")
    return [
        Member.of(f"expert-{index}", "expert", address, f"--preload={index}/{count}", *flags)
        for index, address in enumerate(free_addresses(count))
    ]
